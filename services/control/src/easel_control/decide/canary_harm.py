"""Why a canary goes back, and whether it may be promoted: evidence, fast stops, and what is left to judge by where all
requests go to the candidate. Pure."""

from __future__ import annotations

import math

from msgspec import Struct

from easel_control.decide.betting import log_rate_below
from easel_control.decide.canary import ALL, Canary
from easel_control.decide.canary_seconds import most_fail
from easel_control.decide.evidence import GOOD_PARTS, breach, not_worse

BAD_TIMES = (2.0, 4.0, 10.0, 40.0)
"""Error rates that "beyond the limit" bets on, as multiples of it."""
LIKE_STABLE = 1.5
"""With nothing to compare with at the same time: so many times the errors that stable had are no reason to go back."""


class Harm(Struct, frozen=True):
    """What is wrong with the candidate."""

    reason: str
    message: str


def harm(canary: Canary, replicas_fail: str) -> Harm | None:
    """What is wrong now; None: nothing is known to be. `replicas_fail`: why its replicas cannot run, if so."""
    if canary.is_fallen:
        return None
    if replicas_fail:
        return Harm("ReplicasFail", replicas_fail)
    if canary.by_hand:
        return None
    if most_fail(canary.burst):
        b = canary.burst
        return Harm("MostRequestsFail", f"{b.errors} of the candidate's newest {b.requests} requests failed, of "
                    f"stable's {b.stable_errors} of {b.stable_requests} at the same time")  # fmt: skip
    found = breach(canary.evidence, canary.plan.limits)
    if found is not None:
        return Harm("Worse", found.sentence)
    return _beyond_the_limit(canary)


def promotable(canary: Canary) -> str:
    """What is missing before all requests may go to the candidate; empty: nothing, it is shown to be not worse."""
    found = not_worse(canary.evidence, canary.plan.limits)
    return "" if found.proven else found.sentence


def finishable(canary: Canary) -> str:
    """What is missing where all requests went over at once, so that nothing could be compared: the error rate has to
    be shown to be below the limit. Latency is not judged then."""
    limits = canary.plan.limits
    if len(canary.plan.steps_permille) > 1 or "errors" not in limits.metrics:
        return ""
    shown = log_rate_below(canary.step_errors, canary.step_requests, limits.error_percent / 100, GOOD_PARTS)
    if shown >= -math.log(limits.beta):
        return ""
    return (
        f"not enough data to show that errors are below {limits.error_percent:g} %: {canary.step_errors} of "
        f"{canary.step_requests} requests so far"
    )


def _beyond_the_limit(canary: Canary) -> Harm | None:
    """While all requests go to the candidate: its error rate is shown to be above the limit, and above stable's."""
    if canary.weight_permille != ALL or "errors" not in canary.plan.metrics:
        return None
    stable, limits = canary.evidence.stable, canary.plan.limits
    usual = LIKE_STABLE * (stable.errors + 1) / stable.requests if stable.requests else 0.0
    limit = max(limits.error_percent / 100, usual)
    bad = tuple(times for times in BAD_TIMES if times * limit < 1)
    errors, requests = canary.step_errors, canary.step_requests
    if not bad or log_rate_below(errors, requests, limit, bad) < -math.log(limits.alpha):
        return None
    return Harm("Worse", f"errors: {errors} of {requests} since all requests go to it, and {100 * limit:.2g} % are "
                "allowed")  # fmt: skip
