"""The load of one service over the last seconds: what its gateway counted, and what waits for a replica.

Decides what is known well enough to act on. Must never read missing seconds as zero load.

In flight is what replicas answer plus what waits at the gateway (DESIGN: active + pending + open holds). The two are
told by different processes in turns, so a second's in-flight count is completed by the message about waiting requests
that follows it: requests that were let go in between are then not counted in both places.
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
WAITING_FRESH_S = 2.5
"""Nothing waits any more when nothing was said for so long: it is told once a second, and one message may get lost."""
NEXT_WAIT_S = 1.25
"""By when the next message about waiting requests comes, if any wait still."""


class Sample(Struct, frozen=True):
    """One second of one service."""

    at_s: float
    """When it arrived here, on this process's monotonic clock: machines' clocks need not agree."""
    interval_s: float
    requests: int
    in_flight: int
    ready: int


class Wait(Struct, frozen=True):
    """One message about requests that wait for a replica."""

    at_s: float
    """When it arrived here, as with samples."""
    held: int
    oldest_s: float
    """How long the first of them had waited then."""


class Waiting(Struct, frozen=True):
    """Requests that wait for a replica now."""

    held: int
    oldest_s: float


class Load(Struct, frozen=True, kw_only=True):
    """What is known of a service's load now."""

    totals: dict[str, float]
    """Metric → its mean over WINDOW_S, all replicas together; a metric that is not known is absent."""
    ready: int
    """Ready replicas by the newest sample; 0 also where there is no sample, for then none is known to be ready."""
    waiting: Waiting | None = None
    at_s: float = 0.0
    """When the newest sample arrived; without a fresh one, when the newest message about waiting requests did."""
    busy_s: float | None = None
    """When a request was last told of: answered, in flight or waiting; seconds without a ready replica count as such,
    for nobody saw then what came. None: not within the longest window."""

    def per_replica(self, metric: str) -> float | None:
        """The mean per ready replica; None: not known."""
        total = self.totals.get(metric)
        return None if total is None or self.ready == 0 else total / self.ready


def measure(samples: Iterable[Sample], waits: Iterable[Wait], now_s: float) -> Load | None:
    """The load now; None when nothing fresh was heard.

    Samples that arrive twice (two monitors) do no harm: means are taken over what was measured.
    """
    oldest_s = now_s - max(WINDOW_S.values())
    told = [wait for wait in waits if oldest_s < wait.at_s <= now_s]
    waiting = _waiting(told, now_s)
    known = [sample for sample in samples if oldest_s < sample.at_s <= now_s]
    newest = max(known, key=lambda sample: sample.at_s, default=None)
    if newest is None or now_s - newest.at_s > FRESH_S:
        if waiting is None:
            return None
        return Load(totals={}, ready=0, waiting=waiting, at_s=told[-1].at_s, busy_s=told[-1].at_s)
    busy = [s.at_s for s in known if s.requests or s.in_flight or not s.ready] + [w.at_s for w in told if w.held]
    return Load(
        totals=_totals(known, told, now_s),
        ready=newest.ready,
        waiting=waiting,
        at_s=newest.at_s,
        busy_s=max(busy, default=None),
    )


def _waiting(told: list[Wait], now_s: float) -> Waiting | None:
    newest = told[-1] if told else None
    if newest is None or newest.held <= 0 or now_s - newest.at_s > WAITING_FRESH_S:
        return None
    return Waiting(held=newest.held, oldest_s=newest.oldest_s + now_s - newest.at_s)


def _totals(known: list[Sample], told: list[Wait], now_s: float) -> dict[str, float]:
    totals: dict[str, float] = {}
    for metric, window_s in WINDOW_S.items():
        within = [sample for sample in known if sample.at_s > now_s - window_s and sample.interval_s > 0]
        if metric == "concurrency":
            values = [(sample.interval_s, _in_flight(sample, told, now_s)) for sample in within]
            measured = [(interval_s, value * interval_s) for interval_s, value in values if value is not None]
        else:
            measured = [(sample.interval_s, float(sample.requests)) for sample in within]
        covered_s = sum(interval_s for interval_s, _ in measured)
        if covered_s >= window_s * MIN_COVERED:
            totals[metric] = sum(amount for _, amount in measured) / covered_s
    return totals


def _in_flight(sample: Sample, told: list[Wait], now_s: float) -> int | None:
    """In flight and waiting in a sample's second; None while it is not known how many waited still."""
    end_s = sample.at_s + NEXT_WAIT_S
    following = next((wait for wait in told if sample.at_s < wait.at_s <= end_s), None)
    if following:
        return sample.in_flight + following.held
    waited = any(wait.held and sample.at_s - NEXT_WAIT_S <= wait.at_s <= sample.at_s for wait in told)
    return None if waited and now_s < end_s else sample.in_flight
