"""Exact counts of what both arms of a canary answered. Pure."""

from __future__ import annotations

import math

from msgspec import Struct

from easel_contracts.metrics import bin_upper_ms

LEAST_ABOVE = 0.2
"""Of the part that should lie above a quantile, how much must for its bin to divide."""


class Counts(Struct, frozen=True):
    """What one arm answered."""

    requests: int = 0
    errors: int = 0
    bins: dict[int, int] = {}
    """easel_contracts.metrics.latency_bin → answers; those that were no error."""


class Second(Struct, frozen=True):
    """Both arms in one second."""

    unix_s: int
    stable: Counts = Counts()
    candidate: Counts = Counts()


def added(one: Counts, other: Counts) -> Counts:
    """Both together."""
    if not other.requests and not other.bins:
        return one
    bins = dict(one.bins)
    for number, count in other.bins.items():
        bins[number] = bins.get(number, 0) + count
    return Counts(one.requests + other.requests, one.errors + other.errors, bins)


def quantile_bin(counts: Counts, q: float) -> int:
    """The bin that the quantile lies in (nearest rank); 0: nothing was counted."""
    wanted, seen = math.ceil(q * sum(counts.bins.values())), 0
    for number in sorted(counts.bins):
        seen += counts.bins[number]
        if seen >= wanted:
            return number
    return 0


def dividing_bin(counts: Counts, q: float) -> int:
    """The bin of a quantile, or where hardly anything lies above it, because many answers take the same time, the one
    below: a bound that stable never exceeds leaves nothing to compare with."""
    number = quantile_bin(counts, q)
    return number if slower(counts, number) >= LEAST_ABOVE * (1 - q) * sum(counts.bins.values()) else number - 1


def quantile_ms(counts: Counts, q: float) -> float:
    """A quantile of latency, too high by 2 % at most; 0: nothing was counted."""
    return bin_upper_ms(quantile_bin(counts, q)) if counts.bins else 0.0


def slower(counts: Counts, bound: int) -> int:
    """Answers above a bin."""
    return sum(count for number, count in counts.bins.items() if number > bound)
