"""A cell: what is known of one service over a span of time. Seconds add up to minutes by `merge`.

Gauges are kept as integrals (value x seconds for which it was known), so that merging is plain addition and the
mean over any window is right whatever the lengths of its parts. Must never read "nobody told" as zero: a span that
no Envoy covered has `interval_s` 0, and its rates are unknown.
"""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.metrics import ServiceMetrics
from easel_monitor.decide import histogram

Five = tuple[int, int, int, int, int]
NONE: Five = (0, 0, 0, 0, 0)
CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")


class Cell(Struct, frozen=True, array_like=True):
    """One service from `start_s` on."""

    start_s: int
    """Unix seconds."""
    interval_s: float = 0.0
    """Seconds that Envoy's numbers cover; 0: no Envoy reported."""
    requests: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Answers by class, 1xx to 5xx."""
    retries: int = 0
    timeouts: int = 0
    in_flight_s: float = 0.0
    """In-flight requests, integrated over interval_s."""
    ready_s: float = 0.0
    """Healthy endpoints, integrated over interval_s."""
    usage_s: float = 0.0
    """Seconds for which agents told what the replicas use; 0: no agent reported."""
    cpu_core_s: float = 0.0
    memory_mib_s: float = 0.0
    span_s: float = 0.0
    """Seconds that were looked at."""
    total_s: float = 0.0
    """Replicas that had not ended (by facts), integrated over span_s."""
    latency: tuple[int, ...] = histogram.EMPTY
    """Counts over histogram.BOUNDS_MS."""
    refused: Five = NONE
    """Answered by Envoy itself, by code of REFUSALS."""


class Usage(Struct, frozen=True):
    """What the replicas of a service use, as their agents last said."""

    cpu_cores: float
    memory_mib: float


def merge(a: Cell, b: Cell) -> Cell:
    """Both spans together, from the earlier start on."""
    return Cell(
        start_s=min(a.start_s, b.start_s),
        interval_s=a.interval_s + b.interval_s,
        requests=add_five(a.requests, b.requests),
        retries=a.retries + b.retries,
        timeouts=a.timeouts + b.timeouts,
        in_flight_s=a.in_flight_s + b.in_flight_s,
        ready_s=a.ready_s + b.ready_s,
        usage_s=a.usage_s + b.usage_s,
        cpu_core_s=a.cpu_core_s + b.cpu_core_s,
        memory_mib_s=a.memory_mib_s + b.memory_mib_s,
        span_s=a.span_s + b.span_s,
        total_s=a.total_s + b.total_s,
        latency=histogram.merge(a.latency, b.latency),
        refused=add_five(a.refused, b.refused),
    )


def cell_of(seen: ServiceMetrics | None, usage: Usage | None, replicas: int, at_unix_s: float) -> Cell:
    """One second as a cell: what Envoy saw and what the agents measured, each None where nobody told."""
    second = Cell(
        start_s=int(at_unix_s),
        usage_s=0.0 if usage is None else 1.0,
        cpu_core_s=0.0 if usage is None else usage.cpu_cores,
        memory_mib_s=0.0 if usage is None else usage.memory_mib,
        span_s=1.0,
        total_s=float(replicas),
    )
    if seen is None:
        return second
    of, refused = seen.requests_by_code.get, seen.refused_by_code.get
    return merge(
        second,
        Cell(
            start_s=second.start_s,
            interval_s=seen.interval_s,
            requests=(of("1xx", 0), of("2xx", 0), of("3xx", 0), of("4xx", 0), of("5xx", 0)),
            retries=seen.retries,
            timeouts=seen.timeouts,
            in_flight_s=seen.in_flight * seen.interval_s,
            ready_s=seen.replicas_ready * seen.interval_s,
            latency=seen.latency_counts if any(seen.latency_counts) else histogram.EMPTY,
            refused=(refused("408", 0), refused("429", 0), refused("450", 0), refused("499", 0), refused("503", 0)),
        ),
    )


def add_five(a: Five, b: Five) -> Five:
    """One by one."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4])
