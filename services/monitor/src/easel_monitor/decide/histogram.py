"""Latency histograms: how they are merged, re-bucketed and read.

Decides what a quantile is. Must never invent a latency where there was no request: `None` is the answer then.
A histogram is a tuple of counts beside a tuple of upper bounds (inclusive, in ms); one count more than bounds,
the last holds what is above all bounds. Counts are per interval, so histograms of seconds, replicas and Envoys add.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BOUNDS_MS: tuple[float, ...] = (
    0.5, 1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 40, 50, 70, 100, 140, 200, 300, 400, 500, 700, 1_000, 1_400, 2_000, 3_000,
    4_000, 5_000, 7_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
)  # fmt: skip
"""The buckets the monitor keeps: those that Envoy's bootstrap asks for (easel_router.bootstrap; a test compares)."""

EMPTY: tuple[int, ...] = ()
"""No request: merges with anything; the cheap form of a row of zeros."""


def merge(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Both together; associative and commutative, EMPTY is neutral."""
    if not a:
        return b
    if not b:
        return a
    return tuple(map(int.__add__, a, b))


def from_cumulative(bounds_ms: Sequence[float], cumulative: Sequence[int], total: int) -> tuple[int, ...]:
    """Counts over BOUNDS_MS from Envoy's cumulative buckets.

    Where Envoy has other bounds than we keep, a bucket goes whole into the first of ours that covers its upper
    bound: a quantile may come out higher than it was, never lower.
    """
    if total <= 0:
        return EMPTY
    counts = [0] * (len(BOUNDS_MS) + 1)
    below = 0
    for bound, up_to in zip(bounds_ms, cumulative, strict=True):
        if up_to > below:
            counts[bisect_left(BOUNDS_MS, bound)] += up_to - below
            below = up_to
    counts[-1] += max(0, total - below)
    return tuple(counts)


def quantile_ms(bounds_ms: Sequence[float], counts: Sequence[int], q: float) -> float | None:
    """The q-quantile (0 < q <= 1) in ms; None without requests.

    Linear interpolation within the bucket that holds the rank, as Prometheus' histogram_quantile does; what lies
    above all bounds is told as the highest bound.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = q * total
    below = 0
    for i, count in enumerate(counts):
        if count and below + count >= rank:
            if i == len(bounds_ms):
                break
            lower = bounds_ms[i - 1] if i else 0.0
            return lower + (bounds_ms[i] - lower) * max(0.0, rank - below) / count
        below += count
    return float(bounds_ms[-1])
