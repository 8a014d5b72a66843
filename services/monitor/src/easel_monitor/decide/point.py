"""Cells as what users read: rates per second, means, quantiles. Unknown stays None; it is never shown as zero."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from msgspec import Struct

from easel_contracts.metrics import REFUSALS
from easel_monitor.decide import cell, histogram
from easel_monitor.decide.cell import CODES, Cell


class Point(Struct, frozen=True, kw_only=True):
    """A cell, read. None: nobody measured it in this span."""

    at_unix_s: int
    qps: float | None
    qps_by_code: dict[str, float]
    in_flight: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    latency_p999_ms: float | None
    cpu_cores: float | None
    memory_mib: float | None
    replicas_ready: int | None
    replicas_total: int | None
    retries_per_s: float | None
    timeouts_per_s: float | None
    refused_by_code: dict[str, float]


def point(of: Cell) -> Point:
    """What a span says; quantiles are of the requests that were answered by a replica in it."""
    seen, used = of.interval_s, of.usage_s
    p50, p90, p99, p999 = (histogram.quantile_ms(histogram.BOUNDS_MS, of.latency, q) for q in (0.5, 0.9, 0.99, 0.999))
    return Point(
        at_unix_s=of.start_s,
        qps=_per(sum(of.requests), seen),
        qps_by_code={code: n / seen for code, n in zip(CODES, of.requests, strict=True) if n and seen > 0},
        in_flight=_per(of.in_flight_s, seen),
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        latency_p999_ms=p999,
        cpu_cores=_per(of.cpu_core_s, used),
        memory_mib=_per(of.memory_mib_s, used),
        replicas_ready=_count(of.ready_s, seen),
        replicas_total=_count(of.total_s, of.span_s),
        retries_per_s=_per(of.retries, seen),
        timeouts_per_s=_per(of.timeouts, seen),
        refused_by_code={code: n / seen for code, n in zip(REFUSALS, of.refused, strict=True) if n and seen > 0},
    )


def summary(cells: Iterable[Cell]) -> Cell | None:
    """All cells as one; None when there are none."""
    found = list(cells)
    return reduce(cell.merge, found) if found else None


def _per(total: float, seconds: float) -> float | None:
    return total / seconds if seconds > 0 else None


def _count(total: float, seconds: float) -> int | None:
    return round(total / seconds) if seconds > 0 else None
