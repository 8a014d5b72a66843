"""A canary in words, bars and tables."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from easel_sdk.types import Canary

BAR = 20
NOT_WORSE_AT = 20.0
"""Likelihood ratio from which "not worse" is shown."""
KINDS = {
    "errors": "errors", "slower_than_p50": "slower than p50", "slower_than_p95": "slower than p95",
    "slower_than_p99": "slower than p99",
}  # fmt: skip


def percent(permille: int) -> str:
    """E.g. `0.5 %`."""
    return f"{permille / 10:g} %"


def outcome(canary: Canary) -> str:
    """What it waits for, or what it came to."""
    return canary.waits_for or canary.message


def line(canary: Canary) -> str:
    """Where it stands, in a line."""
    live = "" if canary.realised_permille == canary.weight_permille else f" ({percent(canary.realised_permille)} live)"
    stable, candidate = canary.stable, canary.candidate_counts
    words = [
        f"{canary.state.replace('_', ' ')} at {percent(canary.weight_permille)}{live}",
        f"candidate {candidate.requests:,} requests, {candidate.errors:,} errors",
        f"stable {stable.requests:,} requests, {stable.errors:,} errors",
    ]
    return " · ".join([*words, outcome(canary)])


def described(canary: Canary) -> str:
    """All of it."""
    blocks = ["\n".join(_head(canary)), "\n".join(_arms(canary))]
    if canary.evidence:
        blocks.append("\n".join(_evidence(canary)))
    blocks.append("\n".join(_journal(canary)))
    return "\n\n".join(blocks)


def bar(part: float) -> str:
    """How far something is on its way, 0 to 1."""
    filled = round(min(max(part, 0.0), 1.0) * BAR)
    return "█" * filled + "░" * (BAR - filled)


def _head(canary: Canary) -> list[str]:
    from easel_cli.output import when

    plan, steps = canary.plan, [percent(step) for step in canary.plan.steps_permille]
    if canary.step >= 0:
        steps[canary.step] = f"[{steps[canary.step]}]"
    live = "" if canary.realised_permille == canary.weight_permille else f", {percent(canary.realised_permille)} live"
    candidate = f"revision {canary.candidate_revision}" if canary.kind == "service" else canary.candidate
    rows: list[tuple[str, str]] = [
        ("Canary", f"{canary.name}, {canary.state.replace('_', ' ')}"),
        ("Candidate", candidate),
        ("Stable", f"revision {canary.stable_revision}" if canary.kind == "service" else "the other members"),
        ("Weight", percent(canary.weight_permille) + live),
        ("Steps", f"{' → '.join(steps)}, {plan.step_time_s} s each at least{', by hand' if plan.manual else ''}"),
        ("Judged by", _judged(canary)),
        ("Waits for", canary.waits_for or "-"),
        ("Message", canary.message or "-"),
        ("Started", when(canary.start_time)),
    ]
    if canary.HasField("end_time"):
        rows.append(("Ended", when(canary.end_time)))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _judged(canary: Canary) -> str:
    plan, said = canary.plan, []
    if "errors" in plan.metrics:
        said.append(f"errors, below {plan.error_limit_percent:g} %")
    if "latency" in plan.metrics:
        said.append(f"latency, p95 below {plan.latency_limit_ratio:g} times stable's")
    if plan.mirror_gate:
        said.append("compared answers")
    worse = "back" if plan.on_breach == "rollback" else "paused out of traffic"
    return f"{'; '.join(said)}; when it is worse: {worse}"


def _arms(canary: Canary) -> list[str]:
    rows: list[tuple[str, ...]] = [("SIDE", "REQUESTS", "ERRORS", "P50", "P95", "P99")]
    for side, counts in (("stable", canary.stable), ("candidate", canary.candidate_counts)):
        rate = f" ({100 * counts.errors / counts.requests:.2g} %)" if counts.requests else ""
        times = (f"{ms:.3g} ms" if ms else "-" for ms in (counts.p50_ms, counts.p95_ms, counts.p99_ms))
        rows.append((side, f"{counts.requests:,}", f"{counts.errors:,}{rate}", *times))
    return _aligned(rows)


def _evidence(canary: Canary) -> list[str]:
    """How far each kind is to a breach, and to being shown to be not worse."""
    rows: list[tuple[str, ...]] = [("EVIDENCE", "WORSE", "", "RATIO", "EVENTS (CANDIDATE / STABLE)", "NOT WORSE")]
    for row in canary.evidence:
        limit = row.limit_log10_e or 1.0
        at = f" ({row.threshold_ms:.3g} ms)" if row.threshold_ms else ""
        shown = f"{row.not_worse_ratio:.3g} of {NOT_WORSE_AT:g}" if row.kind in ("errors", "slower_than_p95") else ""
        rows.append((
            KINDS.get(row.kind, row.kind) + at, bar(row.log10_e / limit), f"10^{row.log10_e:.1f} of 10^{limit:.1f}",
            f"{row.rate_ratio:.3g}" if row.rate_ratio else "-", f"{row.candidate_events:,} / {row.stable_events:,}",
            shown or "-",
        ))  # fmt: skip
    return _aligned(rows)


def _journal(canary: Canary) -> list[str]:
    from easel_cli.output import when

    rows: list[tuple[str, ...]] = [("TIME", "WEIGHT", "WHAT", "MESSAGE")]
    rows += [(when(n.at), percent(n.weight_permille), n.reason, n.message) for n in canary.journal]
    return _aligned(rows)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    from rich.cells import cell_len

    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


class Follower:
    """Shows a canary as it changes: on a terminal the whole of it in place, else a line for each change."""

    def __init__(self) -> None:
        self._live: Any = None
        self._last, self._began = "", time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True, highlight=False), transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, canary: Canary) -> None:
        """One look at it."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(described(canary)), refresh=True)
            return
        said = f"{canary.state} {canary.weight_permille} {canary.realised_permille} {outcome(canary)}"
        if said != self._last:
            self._last = said
            print(f"[..] {time.monotonic() - self._began:6.1f} s  {line(canary)}", file=sys.stderr, flush=True)
