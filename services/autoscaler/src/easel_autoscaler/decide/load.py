"""The load of one service over the last seconds, from its one-second metrics.

Decides what is known well enough to act on. Must never read missing seconds as zero load.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

WINDOW_S = {"qps": 10.0, "concurrency": 5.0}
"""Over how many seconds a metric is averaged."""
FRESH_S = 5.0
"""A newest sample older than this says nothing about now."""
MIN_COVERED = 0.5
"""Share of a window that must have been measured before its mean is believed."""


class Sample(Struct, frozen=True):
    """One second of one service."""

    at_s: float
    """When it arrived here, on this process's monotonic clock: machines' clocks need not agree."""
    interval_s: float
    requests: int
    in_flight: int
    ready: int


class Load(Struct, frozen=True, kw_only=True):
    """What is known of a service's load now."""

    totals: dict[str, float]
    """Metric → its mean over WINDOW_S, all replicas together; a metric that is not known is absent."""
    ready: int
    """Ready replicas by the newest sample."""

    def per_replica(self, metric: str) -> float | None:
        """The mean per ready replica; None: not known."""
        total = self.totals.get(metric)
        return None if total is None or self.ready == 0 else total / self.ready


def measure(samples: Iterable[Sample], now_s: float) -> Load | None:
    """The load now; None when nothing fresh was heard.

    Samples that arrive twice (two monitors) do no harm: means are taken over what was measured.
    """
    known = [sample for sample in samples if now_s - max(WINDOW_S.values()) < sample.at_s <= now_s]
    newest = max(known, key=lambda sample: sample.at_s, default=None)
    if newest is None or now_s - newest.at_s > FRESH_S:
        return None
    totals: dict[str, float] = {}
    for metric, window_s in WINDOW_S.items():
        within = [sample for sample in known if sample.at_s > now_s - window_s and sample.interval_s > 0]
        covered_s = sum(sample.interval_s for sample in within)
        if covered_s < window_s * MIN_COVERED:
            continue
        if metric == "qps":
            totals[metric] = sum(sample.requests for sample in within) / covered_s
        else:
            totals[metric] = sum(sample.in_flight * sample.interval_s for sample in within) / covered_s
    return Load(totals=totals, ready=newest.ready)
