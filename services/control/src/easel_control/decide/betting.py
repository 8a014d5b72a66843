"""The arithmetic of always-valid tests: how much a bet against "both arms are equal" has won. Pure.

An event (an error, a slow answer) falls on the candidate with probability w, its share of the requests, where the arms
are equal, whatever makes both of them good or bad in that second. A bettor who believes that the candidate has θ times
stable's rate gives it q = wθ / (wθ + 1 - w) instead. With x events on the candidate and y on stable his money is
multiplied by (q/w)^x ((1-q)/(1-w))^y, which is θ^x / (1 + w(θ-1))^(x+y), and by 1 in the mean where the arms are equal:
a martingale that begins at 1. Ville's inequality: it ever reaches 1/α with probability α at most, however often one
looks and whenever one stops. As θ is not known, equal sums are put on several; their mean is a martingale as well.

w may be the share that is told before the second, or the share of the second's own requests. In the latter case x is
drawn without replacement, and the mean is at most 1 (Hoeffding 1963, theorem 4: a convex function of such a sum has at
most the mean it has with replacement).

Sources: Wald 1945; Robbins 1970; Lindon, Malek, "Anytime Valid Inference for Multinomial Count Data" (2022);
arXiv 2205.14762 (sequential tests of releases at Netflix).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct


class Bets(Struct, frozen=True, kw_only=True, array_like=True):
    """What is known of one kind of event, over the seconds that were judged."""

    log_e: tuple[float, ...]
    """Natural logarithm of the money, for each θ of the grid."""
    stable_events: int = 0
    candidate_events: int = 0
    stable_requests: int = 0
    candidate_requests: int = 0
    expected: float = 0.0
    """Events that the candidate would have had at stable's rate of each second."""


class Arms(Struct, frozen=True):
    """Events and requests of both arms in one second."""

    stable_events: int
    stable_requests: int
    candidate_events: int
    candidate_requests: int

    @property
    def share(self) -> float:
        """The candidate's of the requests; 0 where there were none."""
        total = self.stable_requests + self.candidate_requests
        return self.candidate_requests / total if total else 0.0


def opened(grid: Sequence[float]) -> Bets:
    """Before the first second."""
    return Bets(log_e=(0.0,) * len(grid))


def placed(bets: Bets, arms: Arms, share: float, grid: Sequence[float]) -> Bets:
    """After one more second. Nothing can be learned, and nothing changes, where one arm had all of the traffic
    (`share` 0 or 1)."""
    if not 0.0 < share < 1.0:
        return bets
    events = arms.stable_events + arms.candidate_events
    log_e = bets.log_e
    if events:
        log_e = tuple(
            before + arms.candidate_events * math.log(theta) - events * math.log1p(share * (theta - 1.0))
            for before, theta in zip(bets.log_e, grid, strict=True)
        )
    return Bets(
        log_e=log_e,
        stable_events=bets.stable_events + arms.stable_events,
        candidate_events=bets.candidate_events + arms.candidate_events,
        stable_requests=bets.stable_requests + arms.stable_requests,
        candidate_requests=bets.candidate_requests + arms.candidate_requests,
        expected=bets.expected + arms.stable_events * share / (1.0 - share),
    )


def log_mean(logs: Sequence[float]) -> float:
    """Logarithm of the mean of what these are the logarithms of; without overflow."""
    top = max(logs)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(each - top) for each in logs) / len(logs))


def rate_ratio(bets: Bets) -> float:
    """The candidate's rate by stable's; 0: it had none. A stable without an event is taken to have had half a one."""
    half = 0.5 * bets.candidate_requests / bets.stable_requests if bets.stable_requests else 0.5
    return bets.candidate_events / (bets.expected or half) if bets.candidate_events else 0.0


def log_rate_below(events: int, requests: int, limit: float, good: Sequence[float]) -> float:
    """Natural logarithm of the likelihood ratio of "the rate is good" by "it is at the limit" (Wald's), the mean over
    the good rates, which are parts of the limit. Where the rate is at the limit or above, it ever reaches 1/β with
    probability β at most. `limit`: in (0, 1)."""
    clean = requests - events
    return log_mean([events * math.log(part) + clean * (math.log1p(-part * limit) - math.log1p(-limit))
                     for part in good])  # fmt: skip
