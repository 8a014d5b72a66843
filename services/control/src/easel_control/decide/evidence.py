"""Whether a canary is worse than what it is to replace: evidence from exact counts, second by second. Pure.

Four kinds of events are compared between the arms: errors, and answers slower than stable's p50, p95 and p99. The
thresholds are bounds of the bins that the counts come in, frozen from stable's first requests before they are used.
Each kind has a bet against "the arms are equal" (decide/betting.py), whose money is the evidence: with equal arms it
ever reaches 1/alpha with probability alpha at most, so it may be looked at every second, without a sample size.

- Breach: the mean over the kinds is 1/alpha or more, and a kind alone is, whose rate is higher by so much that it
  matters (LEAST_RATIO).
- Not worse: two of Wald's tests with the sides changed. Errors: likelihood of a rate well below the limit by that of
  the limit itself. Latency: were the candidate slower than stable by the limit at p95, then at least as large a part
  of its answers would be slower than limit × p95 as of stable's are slower than p95; the bet is that it is less.
- Neither: there is not enough data, and the sentence says how much there is. Nothing is made up for quiet times.

Which share is right for the test: a second with BUSY requests says it itself, so that it does not matter how precisely
the weight is realised, when each Envoy took it up, or that keys and matches bias it. A quieter second is judged with
the share that was told before it, for a second of one request says nothing about its own share.

Method and numbers: docs/mechanisms/canary-statistics.md.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.metrics import BIN_GROWTH, bin_upper_ms
from easel_control.decide.betting import Arms, Bets, log_mean, log_rate_below, opened, placed, rate_ratio
from easel_control.decide.counts import Counts as Counts
from easel_control.decide.counts import Second as Second
from easel_control.decide.counts import added, dividing_bin, quantile_bin, slower
from easel_control.decide.counts import quantile_ms as quantile_ms

ERRORS = "errors"
SLOWER = {"slower_than_p50": 0.50, "slower_than_p95": 0.95, "slower_than_p99": 0.99}
"""Kind → the quantile of stable's latency that is its threshold."""
WITHIN = "within_limit"
"""The bet on "not worse" of latency. Not a kind of its own."""
KINDS: dict[str, tuple[str, ...]] = {"errors": (ERRORS,), "latency": tuple(SLOWER)}
"""Metric → kinds."""

_ERRORS_GRID = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_LATENCY_GRID = (1.05, 1.1, 1.2, 1.4, 1.8, 2.5)
GRIDS = {ERRORS: _ERRORS_GRID, **dict.fromkeys(SLOWER, _LATENCY_GRID), WITHIN: (0.3, 0.5, 0.8)}
"""Kind → candidate's rate by stable's that is bet on."""
LEAST_RATIO = {ERRORS: 1.5, "slower_than_p50": 1.05, "slower_than_p95": 1.10, "slower_than_p99": 1.15}
"""A ratio below is no reason to go back, however sure it is."""
GOOD_PARTS = (0.1, 0.2, 0.5, 0.8)
"""Error rates that "not worse" bets on, as parts of the limit."""
BUSY = 20
"""Requests of a second from which on its own share is used."""
BASELINE_REQUESTS, LEAST_BASELINE = 500, 20
"""Thresholds are frozen from so many of stable's answers; from fewer when asked, but not from less than the second."""
RECENT = 200.0
"""Requests that the running share looks back on."""
STEP_REQUESTS, STEP_WORTH_S = 500, 120.0
"""A step needs so many of the candidate's requests, or so many seconds' worth where that is less."""


class Limits(Struct, frozen=True):
    """What a canary is judged by."""

    error_percent: float = 0.5
    """Not worse: the error rate is below. In (0, 100)."""
    latency_ratio: float = 1.2
    """Not worse: the candidate's p95 by stable's is below. Above 1."""
    metrics: tuple[str, ...] = ("errors", "latency")
    alpha: float = 0.01
    """Probability of a breach where the arms are equal."""
    beta: float = 0.05
    """Probability of "not worse", for each metric, where it is worse."""


class Evidence(Struct, frozen=True, kw_only=True):
    """All that is remembered of a canary's seconds; small, and written as it is."""

    through_unix_s: int = 0
    since_unix_s: int = 0
    stable: Counts = Counts()
    """All that was observed, judged or not."""
    candidate: Counts = Counts()
    baseline: Counts = Counts()
    """Stable's until the thresholds were frozen."""
    thresholds: dict[str, int] = {}
    """Kind → the bin that is just not slower; empty: not frozen yet. WITHIN's is for stable; the limit is above it."""
    slack_bins: int
    """Bins by which the limit of latency lies above stable's p95."""
    bets: dict[str, Bets] = {}
    recent: tuple[float, float] = (0.0, 0.0)
    """The candidate's and all requests of late, for the running share."""


class Breach(Struct, frozen=True, kw_only=True):
    """The candidate is worse."""

    kind: str
    log10_e: float
    rate_ratio: float
    stable_events: int
    candidate_events: int
    sentence: str


class NotWorse(Struct, frozen=True, kw_only=True):
    """Whether the candidate is shown to keep the limits."""

    proven: bool
    ratios: dict[str, float]
    """Metric → likelihood ratio of "below the limit"; proven at 1/beta."""
    sentence: str


class Shown(Struct, frozen=True, kw_only=True):
    """One kind's row, as the API shows it (easel.v1.CanaryEvidence)."""

    kind: str
    log10_e: float
    limit_log10_e: float
    rate_ratio: float
    threshold_ms: float
    stable_events: int
    candidate_events: int
    not_worse_ratio: float


def begin(limits: Limits | None = None) -> Evidence:
    """Before the first second. Of the limits only the latency's is needed here: it becomes a threshold."""
    return Evidence(slack_bins=_slack(limits or Limits()), bets={kind: opened(grid) for kind, grid in GRIDS.items()})


def share_of(evidence: Evidence, weight_permille: int, biased: bool) -> float:
    """The candidate's share as known before the next second: the live weight. Where match or sticky bias it, the
    share of the last requests, if it is more: a weight that was just raised is not in them yet, and too low a share
    would take its requests for harm. 0 while the weight is 0 and nothing came: then nothing is judged."""
    told = weight_permille / 1000
    candidate, total = evidence.recent
    return max(told, candidate / total) if biased and total else told


def observe(evidence: Evidence, second: Second, share: float) -> Evidence:
    """With one more second; one that is not newer than the last is ignored.

    `share`: of `share_of`, before this second. 0 or 1: the second is counted, not judged (before the first step; while
    new replicas are cold; when all has gone over).
    """
    if second.unix_s <= evidence.through_unix_s:
        return evidence
    stable, candidate = second.stable, second.candidate
    baseline = evidence.baseline if is_frozen(evidence) else added(evidence.baseline, stable)
    after = replace(
        evidence, through_unix_s=second.unix_s, since_unix_s=evidence.since_unix_s or second.unix_s,
        stable=added(evidence.stable, stable), candidate=added(evidence.candidate, candidate), baseline=baseline,
        bets=_judged(evidence, second, share), recent=_recent(evidence.recent, second),
    )  # fmt: skip
    return freeze(after) if sum(baseline.bins.values()) >= BASELINE_REQUESTS else after


def is_frozen(evidence: Evidence) -> bool:
    """Whether latency is compared already."""
    return bool(evidence.thresholds)


def freeze(evidence: Evidence) -> Evidence:
    """Takes the thresholds from what stable has answered by now; unchanged where they are taken, or from too little.
    Happens by itself after BASELINE_REQUESTS; asked for when the time of a baseline is over."""
    if is_frozen(evidence) or sum(evidence.baseline.bins.values()) < LEAST_BASELINE:
        return evidence
    thresholds = {kind: quantile_bin(evidence.baseline, q) for kind, q in SLOWER.items()}
    thresholds[WITHIN] = dividing_bin(evidence.baseline, SLOWER["slower_than_p95"])
    return replace(evidence, thresholds=thresholds)


def breach(evidence: Evidence, limits: Limits) -> Breach | None:
    """What the candidate is worse in; None: nothing is known to be."""
    least = -math.log(limits.alpha)
    found = {kind: log_mean(evidence.bets[kind].log_e) for kind in kinds(limits)}
    if not found or log_mean(list(found.values())) < least:
        return None
    sure = [kind for kind, log_e in found.items()
            if log_e >= least and rate_ratio(evidence.bets[kind]) >= LEAST_RATIO[kind]]  # fmt: skip
    if not sure:
        return None
    kind = max(sure, key=lambda k: found[k])
    bets, ratio, log10_e = evidence.bets[kind], rate_ratio(evidence.bets[kind]), found[kind] / math.log(10)
    what = ERRORS
    if kind != ERRORS:
        what = f"answers slower than stable's {kind.rpartition('_')[2]} of {threshold_ms(evidence, kind):.3g} ms"
    sentence = (
        f"{what}: {_part(bets.candidate_events, bets.candidate_requests)} of the candidate, "
        f"{_part(bets.stable_events, bets.stable_requests)} of stable, {ratio:.3g} times stable's rate; "
        f"evidence 10^{log10_e:.1f}, limit 10^{-math.log10(limits.alpha):.1f}"
    )
    return Breach(kind=kind, log10_e=log10_e, rate_ratio=ratio, stable_events=bets.stable_events,
                  candidate_events=bets.candidate_events, sentence=sentence)  # fmt: skip


def not_worse(evidence: Evidence, limits: Limits) -> NotWorse:
    """Whether the candidate is shown to keep the limits, and if not, what is missing. Raises ValueError where the
    evidence was begun with another limit of latency."""
    if evidence.slack_bins != _slack(limits):
        raise ValueError(f"evidence was begun with another latency_ratio than {limits.latency_ratio:g}")
    logs: dict[str, float] = {}
    said: list[str] = []
    bets = evidence.bets[ERRORS]
    if "errors" in limits.metrics:
        logs["errors"] = log_rate_below(bets.candidate_events, bets.candidate_requests, limits.error_percent / 100,
                                        GOOD_PARTS)  # fmt: skip
        said.append(f"errors {_part(bets.candidate_events, bets.candidate_requests)}, limit {limits.error_percent:g} %")
    if "latency" in limits.metrics:
        within = evidence.bets[WITHIN]
        logs["latency"] = log_mean(within.log_e)
        said.append(f"slower than {limits.latency_ratio:g} × stable's p95 "
                    f"{_part(within.candidate_events, within.candidate_requests)}, slower than p95 of stable "
                    f"{_part(within.stable_events, within.stable_requests)}")  # fmt: skip
    least = -math.log(limits.beta)
    ratios = {metric: math.exp(min(log, 30.0)) for metric, log in logs.items()}
    open_ones = [metric for metric, log in logs.items() if log < least]
    needed = ", ".join(f"{metric} at {ratios[metric]:.2g} of {1 / limits.beta:g}" for metric in open_ones)
    head = f"not enough data to show that it is not worse ({needed})" if open_ones else "not worse"
    return NotWorse(proven=not open_ones, ratios=ratios, sentence=f"{head}: {'; '.join(said)}")


def shown(evidence: Evidence, limits: Limits) -> list[Shown]:
    """A row for each kind that is judged."""
    ratios = not_worse(evidence, limits).ratios
    ratios = {ERRORS: ratios.get("errors", 0.0), "slower_than_p95": ratios.get("latency", 0.0)}
    return [
        Shown(
            kind=kind, log10_e=log_mean(evidence.bets[kind].log_e) / math.log(10),
            limit_log10_e=-math.log10(limits.alpha), rate_ratio=rate_ratio(evidence.bets[kind]),
            threshold_ms=threshold_ms(evidence, kind), stable_events=evidence.bets[kind].stable_events,
            candidate_events=evidence.bets[kind].candidate_events, not_worse_ratio=ratios.get(kind, 0.0),
        )
        for kind in kinds(limits)
    ]  # fmt: skip


def required_requests(evidence: Evidence, weight_permille: int) -> int:
    """Requests of the candidate that a step at this weight needs before the next, by the traffic there was so far;
    at least one."""
    seconds = evidence.through_unix_s - evidence.since_unix_s + 1
    rate = (evidence.stable.requests + evidence.candidate.requests) / seconds if evidence.since_unix_s else 0.0
    return max(1, min(STEP_REQUESTS, math.ceil(STEP_WORTH_S * rate * weight_permille / 1000)))


def kinds(limits: Limits) -> tuple[str, ...]:
    """Those that the metrics of the limits mean."""
    return tuple(kind for metric in limits.metrics for kind in KINDS[metric])


def threshold_ms(evidence: Evidence, kind: str) -> float:
    """What slower means; 0: not frozen yet, or no kind of latency."""
    return bin_upper_ms(evidence.thresholds[kind]) if kind in evidence.thresholds else 0.0


def _judged(evidence: Evidence, second: Second, share: float) -> dict[str, Bets]:
    stable, candidate = second.stable, second.candidate
    total = stable.requests + candidate.requests
    if not total or not 0.0 < share < 1.0:
        return evidence.bets
    busy = total >= BUSY
    arms = {ERRORS: Arms(stable.errors, stable.requests, candidate.errors, candidate.requests)}
    answered = (sum(stable.bins.values()), sum(candidate.bins.values()))
    for kind, bound in evidence.thresholds.items():
        slack = evidence.slack_bins if kind == WITHIN else 0
        arms[kind] = Arms(slower(stable, bound), answered[0], slower(candidate, bound + slack), answered[1])
    return {kind: placed(bets, arms[kind], arms[kind].share if busy else share, GRIDS[kind]) if kind in arms else bets
            for kind, bets in evidence.bets.items()}  # fmt: skip


def _recent(before: tuple[float, float], second: Second) -> tuple[float, float]:
    candidate = before[0] + second.candidate.requests
    total = before[1] + second.candidate.requests + second.stable.requests
    return (candidate * RECENT / total, RECENT) if total > RECENT else (candidate, total)


def _slack(limits: Limits) -> int:
    """Rounded down: rather too strict by a part of a bin."""
    return max(0, math.floor(math.log(limits.latency_ratio) / math.log(BIN_GROWTH) + 1e-9))


def _part(events: int, requests: int) -> str:
    percent = f" ({100 * events / requests:.2g} %)" if requests else ""
    return f"{events:,} of {requests:,}{percent}"
