"""What several Envoys said in one second, as one ServiceMetrics per service.

Decides which reports belong together and how they add up. Must never count one report twice, nor read a silent
Envoy's requests as zero for longer than its silence is known (`GAUGE_AGE_S`).

A frame is closed when every Envoy with an open stream has reported, or when one reports for the second time:
so no timer of ours beats against Envoy's own flush interval (which would show 0 and then twice the truth).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.metrics import REFUSALS, ServiceMetrics
from easel_monitor.decide import histogram
from easel_monitor.decide.cell import NONE, Five, add_five

GAUGE_AGE_S = 3.0
"""How long an Envoy's last in-flight count stands for it when its next report is late."""


class ClusterSeen(Struct, frozen=True):
    """One cluster in one report: counters of the interval, gauges at its end."""

    requests: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Final answers by class 1xx to 5xx; attempts that were retried are not in it."""
    retries: int = 0
    timeouts: int = 0
    active: int = 0
    """Sent to a replica, not answered yet."""
    pending: int = 0
    """Waiting in Envoy for a connection to a replica."""
    healthy: int = 0
    rejected: int = 0
    """Turned away by Envoy itself (401, 404, 429 ...): no replica was tried, not in `requests`."""
    refused: Five = NONE
    """Answered by Envoy itself, by code of REFUSALS."""
    latency: tuple[int, ...] = histogram.EMPTY


class Report(Struct, frozen=True, kw_only=True):
    """One message of one Envoy."""

    envoy: str
    at_unix_s: float
    interval_s: float
    services: Mapping[tuple[str, str], ClusterSeen]
    """(workspace, service) → its clusters, added up."""
    answered: Mapping[str, int] = {}
    """All answers on the data listener by class, those of Envoy itself included."""


def add(a: ClusterSeen, b: ClusterSeen) -> ClusterSeen:
    """Two clusters of one service (its revisions) in one Envoy."""
    return ClusterSeen(
        requests=add_five(a.requests, b.requests),
        retries=a.retries + b.retries,
        timeouts=a.timeouts + b.timeouts,
        active=a.active + b.active,
        pending=a.pending + b.pending,
        healthy=a.healthy + b.healthy,
        rejected=a.rejected + b.rejected,
        refused=add_five(a.refused, b.refused),
        latency=histogram.merge(a.latency, b.latency),
    )


def is_complete(reported: Collection[str], live: Collection[str]) -> bool:
    """Whether every live Envoy is in the frame."""
    return bool(reported) and all(envoy in reported for envoy in live)


def gauges_of(late: Report, now_unix_s: float) -> Report | None:
    """A late Envoy's last report without its counters; None when it is too old to stand for anything."""
    if now_unix_s - late.at_unix_s > GAUGE_AGE_S:
        return None
    kept = {
        key: ClusterSeen(active=seen.active, pending=seen.pending, healthy=seen.healthy)
        for key, seen in late.services.items()
    }
    return replace(late, services=kept, answered={})


def combine(reports: Iterable[Report], at_unix_s: float) -> list[ServiceMetrics]:
    """One second of every service that at least one Envoy has a cluster for; zero traffic is told as zero.

    Envoys' requests add up; each of them sees every endpoint, so the highest healthy count stands.
    """
    interval_s = 0.0
    seen: dict[tuple[str, str], ClusterSeen] = {}
    for report in reports:
        interval_s = max(interval_s, report.interval_s)
        for key, cluster in report.services.items():
            before = seen.get(key)
            if before is None:
                seen[key] = cluster
            else:
                healthy = max(before.healthy, cluster.healthy)
                seen[key] = replace(add(before, cluster), healthy=healthy)
    return [_metrics(key, of, at_unix_s, interval_s) for key, of in seen.items()]


def _metrics(key: tuple[str, str], of: ClusterSeen, at_unix_s: float, interval_s: float) -> ServiceMetrics:
    workspace, service = key
    return ServiceMetrics(
        workspace=workspace,
        service=service,
        at_unix_s=at_unix_s,
        interval_s=interval_s,
        requests_by_code={code: n for code, n in zip(_CODES, of.requests, strict=True) if n},
        in_flight=of.active + of.pending,
        latency_buckets_ms=histogram.BOUNDS_MS,
        latency_counts=of.latency or _NO_LATENCY,
        retries=of.retries,
        timeouts=of.timeouts,
        replicas_ready=of.healthy,
        refused_by_code={code: n for code, n in zip(REFUSALS, of.refused, strict=True) if n},
    )


_CODES = ("1xx", "2xx", "3xx", "4xx", "5xx")
_NO_LATENCY = (0,) * (len(histogram.BOUNDS_MS) + 1)
