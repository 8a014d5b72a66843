"""Simulated releases, and the rules that other tools judge them by, for canary.py.

The other rules are written from their descriptions: naive peeking (a z-test of all data so far, every ten seconds, as
dashboards invite to), Flagger (absolute limits each minute, back after five failed checks) and Kayenta (Mann-Whitney
over the minutes of a window, 98 % confidence, tolerance 0.25).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from easel_contracts.metrics import BIN_GROWTH, FIRST_BIN_MS
from easel_control.decide.evidence import Counts, Second

CHUNK_S = 60
MEDIAN_MS, SIGMA = 50.0, 0.6
NOISE_SIGMA, NOISE_S = 0.1, 30.0
"""Of what both arms share: latency and error rate go up and down by about so much, and keep it for about so long."""
BASE_ERRORS = 0.001
WORSE, NOT_WORSE, UNKNOWN = "worse", "not worse", "not enough data"
WIDTH = 4096
"""More bins than there are."""


@dataclass(frozen=True)
class Change:
    """What the candidate does otherwise than stable."""

    name: str
    errors: float = BASE_ERRORS
    """Its error rate."""
    latency: float = 1.0
    """Its latency by stable's."""
    wrong: str = NOT_WORSE
    """The verdict that would be wrong; empty: it is neither equal nor beyond the limits, so that either is right."""


@dataclass
class Chunk:
    """Some seconds of requests: second, arm, error, latency of each."""

    second: NDArray[np.int64]
    candidate: NDArray[np.bool_]
    error: NDArray[np.bool_]
    ms: NDArray[np.float64]

    def seconds(self, begin_s: int) -> Iterator[Second]:
        """As the monitor counts them; seconds without a request are left out."""
        ratio = np.maximum(self.ms / FIRST_BIN_MS, 1.0)
        bins = np.ceil(np.round(np.log(ratio) / math.log(BIN_GROWTH), 9)).astype(np.int64)
        bins[self.error] = WIDTH - 1
        keys, counts = np.unique((self.second * 2 + self.candidate) * WIDTH + bins, return_counts=True)
        rows = zip((keys // (2 * WIDTH)).tolist(), (keys // WIDTH % 2).tolist(), (keys % WIDTH).tolist(),
                   counts.tolist(), strict=True)  # fmt: skip
        for at, of_second in groupby(rows, lambda row: row[0]):
            arms: tuple[dict[int, int], dict[int, int]] = ({}, {})
            for _, arm, number, count in of_second:
                arms[arm][number] = count
            yield Second(begin_s + at, *(_counts(bins) for bins in arms))


def _counts(bins: dict[int, int]) -> Counts:
    errors = bins.pop(WIDTH - 1, 0)
    return Counts(errors + sum(bins.values()), errors, bins)


class Traffic:
    """The requests of one release, piece by piece."""

    def __init__(self, change: Change, rate: float, seed: int) -> None:
        self._change, self._rate = change, rate
        self._random = np.random.default_rng(seed)
        self._noise = self._random.normal(0.0, NOISE_SIGMA)

    def next(self, share: float, length_s: int = CHUNK_S) -> Chunk:
        """The next minute, or so many seconds, with a share for the candidate."""
        random, change = self._random, self._change
        arrivals = random.poisson(self._rate, length_s)
        second = np.repeat(np.arange(length_s), arrivals)
        total = len(second)
        candidate = random.random(total) < share
        noise = np.exp(self._walk(length_s))[second]
        error = random.random(total) < np.where(candidate, change.errors, BASE_ERRORS) * noise
        ms = MEDIAN_MS * noise * np.exp(random.normal(0.0, SIGMA, total)) * np.where(candidate, change.latency, 1.0)
        return Chunk(second, candidate, error, ms)

    def _walk(self, length_s: int) -> NDArray[np.float64]:
        keep = math.exp(-1.0 / NOISE_S)
        steps = self._random.normal(0.0, NOISE_SIGMA * math.sqrt(1 - keep * keep), length_s)
        path = np.empty(length_s)
        for n, step in enumerate(steps):
            self._noise = self._noise * keep + step
            path[n] = self._noise
        return path


@dataclass
class Naive:
    """One-sided z-tests at 1 % of the error rate and the mean latency, of all data so far, from 30 s on."""

    at_s: int | None = None
    _sums: Any = field(default_factory=lambda: np.zeros((2, 4)))  # by arm: requests, errors, ms, ms²

    def take(self, chunk: Chunk, begin_s: int) -> None:
        """Looks every ten seconds."""
        for from_s in range(0, CHUNK_S, 10):
            now = (chunk.second >= from_s) & (chunk.second < from_s + 10)
            for arm in (0, 1):
                of = now & (chunk.candidate == bool(arm))
                ms = chunk.ms[of]
                self._sums[arm] += (len(ms), chunk.error[of].sum(), ms.sum(), (ms * ms).sum())
            if begin_s + from_s + 10 >= 30 and self._is_worse():
                self.at_s = begin_s + from_s + 10
                return

    def _is_worse(self) -> bool:
        (n0, e0, s0, q0), (n1, e1, s1, q1) = self._sums
        pooled = (e0 + e1) / (n0 + n1)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1)) or 1.0
        slower = s1 / n1 - s0 / n0
        var = (q0 / n0 - (s0 / n0) ** 2) / n0 + (q1 / n1 - (s1 / n1) ** 2) / n1
        return bool(max((e1 / n1 - e0 / n0) / spread, slower / math.sqrt(var)) > 2.326)


@dataclass
class Flagger:
    """10 % more each minute up to 50 %; a check fails below 99 % of success, or where more than 6 % of the candidate's
    requests are slower than stable's p99. It is watched for half an hour here, and promotes nothing before."""

    at_s: int | None = None
    failed: int = 0

    @staticmethod
    def share(minute: int) -> float:
        """Of the candidate, in a minute."""
        return min(0.1 * (minute + 1), 0.5)

    def take(self, chunk: Chunk, begin_s: int) -> None:
        """One check."""
        p99 = np.quantile(chunk.ms[~chunk.candidate], 0.99)
        mine = chunk.candidate
        self.failed += bool(chunk.error[mine].mean() > 0.01 or (chunk.ms[mine] > p99).mean() > 0.06)
        if self.failed >= 5:
            self.at_s = begin_s + CHUNK_S


@dataclass
class Kayenta:
    """At 10, 20 and 30 minutes: the minutes' error rates and mean latencies of both arms."""

    at_s: int | None = None
    _rows: list[tuple[float, ...]] = field(default_factory=list)

    def take(self, chunk: Chunk, begin_s: int) -> None:
        """A minute; judged where a window ends."""
        arms = [chunk.candidate, ~chunk.candidate]
        self._rows.append((*(chunk.error[arm].mean() for arm in arms), *(chunk.ms[arm].mean() for arm in arms)))
        if len(self._rows) % 10 == 0 and self._is_high():
            self.at_s = begin_s + CHUNK_S

    def _is_high(self) -> bool:
        rows = np.array(self._rows)
        return any(_high(rows[:, n], rows[:, n + 1]) for n in (0, 2))


def _high(candidate: NDArray[np.float64], stable: NDArray[np.float64]) -> bool:
    """Kayenta's "High": the Mann-Whitney interval of the shift (Hodges-Lehmann, 98 %) lies above a quarter of it."""
    shifts = np.sort((candidate[:, None] - stable[None, :]).ravel())
    m = len(candidate)
    lowest = int(m * m / 2 - 2.326 * math.sqrt(m * m * (2 * m + 1) / 12))
    return bool(shifts[max(lowest, 0)] > 0.25 * abs(np.median(shifts)))
