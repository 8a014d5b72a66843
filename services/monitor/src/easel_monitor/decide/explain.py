"""Why a service's numbers are as they are: who reports, what is missing, what stands out. Sentences with numbers."""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.metrics import REFUSALS
from easel_monitor.decide.cell import Cell
from easel_monitor.decide.point import point


class Line(Struct, frozen=True):
    """One reason: a constant, a sentence, what to do."""

    code: str
    message: str
    hint: str = ""


class Known(Struct, frozen=True, kw_only=True):
    """All that the monitor knows of a service and of its own sources."""

    service: str
    window_s: int
    cell: Cell | None
    """The window's sum; None: nothing was measured in it."""
    envoys: int
    envoy_silence_s: float | None
    rejected: int
    """Requests of this service that Envoy turned away itself (401, 404, 429 ...) since this process started."""
    answered_by_envoy: int
    """The same for all services and unknown paths together."""


def explain(known: Known) -> list[Line]:
    """What an engineer should know before believing the numbers."""
    lines = [_source(known)]
    cell = known.cell
    if cell is None or cell.interval_s == 0:
        lines.append(
            Line("NoCluster", f"no Envoy reported a cluster for {known.service} in the last {known.window_s} s",
                 "the route is not applied yet, or no replica was ready since Envoy started: easel explain")
        )  # fmt: skip
    else:
        lines += [*_traffic(known, cell), *_refused(known, cell)]
    if cell is None or cell.usage_s == 0:
        lines.append(Line("NoUsage", "no agent told CPU and memory of its replicas: none runs, or its agent is away"))
    if known.rejected > 0:
        lines.append(
            Line("Rejected", f"{known.rejected} requests of {known.service} were turned away by Envoy (401, 404, "
                 "413, 429) since the monitor started; they are not in its rates", "wrong tokens are the usual reason")
        )  # fmt: skip
    elif known.answered_by_envoy > 0:
        lines.append(
            Line("AnsweredByEnvoy", f"{known.answered_by_envoy} requests were answered by Envoy itself (401, 404, 429 "
                 "and the like; all services together, since the monitor started); they are in no service's numbers")
        )  # fmt: skip
    return lines


def _source(known: Known) -> Line:
    if known.envoys == 0 or known.envoy_silence_s is None:
        return Line("NoEnvoy", "no Envoy sends its statistics now: rates and latencies are unknown, not zero",
                    "easel status shows whether the gateway runs")  # fmt: skip
    return Line("EnvoyReports", f"{known.envoys} Envoy(s) report, the last one {known.envoy_silence_s:.1f} s ago")


def _refused(known: Known, cell: Cell) -> list[Line]:
    """What limits and callers' patience did. No replica (503) is the router's to explain."""
    told = dict(zip(REFUSALS, cell.refused, strict=True))
    found = [f"{told[code]} with {code} ({why})" for code, why in _WHY.items() if told[code]]
    if not found:
        return []
    return [Line("Refused", f"in the last {known.window_s} s the gateway answered by itself {', '.join(found)}",
                 "docs/limits.md says which limits there are")]  # fmt: skip


_WHY = {"429": "a rate, or too many at a time", "450": "the queue was full", "499": "the caller had left"}


def _traffic(known: Known, cell: Cell) -> list[Line]:
    seen = point(cell)
    total = sum(cell.requests)
    if not total:
        return [Line("NoTraffic", f"no request was answered in the last {known.window_s} s (measured, not unknown)")]
    errors = cell.requests[4] / total
    lines = [
        Line(
            "Traffic", f"{total} requests in {cell.interval_s:.0f} s ({seen.qps or 0:.1f}/s), {errors:.1%} of them 5xx"
        )
    ]
    if seen.latency_p50_ms is not None:
        lines.append(
            Line("Latency", f"p50 {seen.latency_p50_ms:.0f} ms, p99 {seen.latency_p99_ms or 0:.0f} ms, of "
                 f"{sum(cell.latency)} answers from replicas (from buckets; time-outs are not in it)")
        )  # fmt: skip
    if cell.timeouts:
        lines.append(Line("Timeouts", f"{cell.timeouts} requests ran into the service's time limit",
                          "raise metadata.rpc.keepalive, or add replicas"))  # fmt: skip
    if cell.retries:
        lines.append(Line("Retries", f"{cell.retries} attempts were repeated on another replica"))
    return lines
