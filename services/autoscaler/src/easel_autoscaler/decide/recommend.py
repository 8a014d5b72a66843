"""EAS's formula: what the load alone asks for at this moment, without memory.

Per target `desired = ceil(ready × metric ÷ threshold)`, the metric being the mean per ready replica; the highest
target wins; the result lies within [min, max]. Within 10 % of the threshold nothing is asked for. Without load it is
at least 1: the last replica is not taken by this formula (see decision.py).

`ready × metric` is the total load, so replicas that are still starting are not asked for a second time. The tolerance
is taken on the load per *wanted* replica, which is the same once all of them are ready.

With no replica ready there is no mean per replica. Requests that wait are counted then: `ceil(waiting ÷ threshold)`
for concurrency, never less than is wanted already, never less than a start from zero makes.
Sources: EAS "Horizontal auto scaling" (formula, tolerance); Kubernetes HPA (several metrics, missing metrics).
"""

from __future__ import annotations

from math import ceil

from msgspec import Struct

from easel_autoscaler.decide.load import WINDOW_S, Load, Waiting
from easel_contracts.facts import ScaleInput
from easel_contracts.spec import Autoscaling

TOLERANCE = 0.1
_ROUNDING = 1e-9
"""A load of exactly n thresholds asks for n, whatever the floating point made of it."""


class Recommendation(Struct, frozen=True, kw_only=True):
    """What the load asks for."""

    wants: int
    """Within [min, max], at least 1."""
    message: str
    """The target that decided, with its numbers."""
    inputs: tuple[ScaleInput, ...]


def recommend(policy: Autoscaling, wanted: int, load: Load) -> Recommendation | None:
    """What `load` asks for, `wanted` being the present decision; None: nothing is known that could decide.

    A target without a value never counts as zero: while one is unknown, nothing below `wanted` is asked for; nor while
    requests wait, for the load may be that of replicas which have just left. With `wanted` 0 only waiting requests
    count: what the last replicas still answer is no reason to have new ones.
    """
    if load.ready == 0 or wanted == 0:
        return _for_waiting(policy, wanted, load.waiting) if load.waiting else None
    inputs = tuple(_input(metric, threshold, wanted, load) for metric, threshold in policy.targets)
    known = [given for given in inputs if given.wants is not None]
    if not known:
        return None
    top = max(known, key=lambda given: (given.wants or 0, _ratio(given)))
    asked = top.wants or 0
    message = _sentence(top, load.ready, wanted)
    if asked < wanted and (load.waiting or len(known) < len(inputs)):
        asked = wanted
        message += f"; {waits(load.waiting) if load.waiting else 'another target is not known yet'}, so {wanted} stay"
    if asked == 0 and policy.min == 0:
        asked = 1
        message += f"; the last one is kept until no request came for {number(policy.zero_grace_s)} s"
    return _limited(policy, asked, message, inputs)


def from_zero(policy: Autoscaling) -> int:
    """How many replicas the first request at zero makes."""
    return min(max(policy.activation_replicas, policy.min, 1), policy.max)


def _limited(policy: Autoscaling, asked: int, message: str, inputs: tuple[ScaleInput, ...]) -> Recommendation:
    wants = min(max(asked, policy.min), policy.max)
    if wants != asked:
        message += f", limited to {'max' if wants < asked else 'min'} {wants}"
    return Recommendation(wants=wants, message=message, inputs=inputs)


def _for_waiting(policy: Autoscaling, wanted: int, waiting: Waiting) -> Recommendation:
    """What requests that wait ask for while no replica is ready. Takes nothing away: those that start are needed."""
    inputs, asked = [], max(wanted, from_zero(policy))
    message = f"{waits(waiting)}, and no replica is ready"
    for metric, threshold in policy.targets:
        wants = None
        if metric == "concurrency":
            tolerated = _tolerated(waiting.held, wanted, threshold)
            wants = wanted if tolerated else ceil(waiting.held / threshold - _ROUNDING)
            asked = max(asked, wants)
            message += f": {waiting.held} / {number(threshold)} asks for {wants}"
        inputs.append(ScaleInput(metric=metric, threshold=threshold, current=None, wants=wants))
    return _limited(policy, asked, message, tuple(inputs))


def _input(metric: str, threshold: float, wanted: int, load: Load) -> ScaleInput:
    per_replica = load.per_replica(metric)
    if per_replica is None:
        return ScaleInput(metric=metric, threshold=threshold, current=None, wants=None)
    wants = (
        wanted
        if _tolerated(per_replica * load.ready, wanted, threshold)
        else ceil(per_replica * load.ready / threshold - _ROUNDING)
    )
    return ScaleInput(metric=metric, threshold=threshold, current=per_replica, wants=wants)


def _tolerated(total: float, wanted: int, threshold: float) -> bool:
    return wanted > 0 and abs(total / (wanted * threshold) - 1) <= TOLERANCE + _ROUNDING


def _ratio(given: ScaleInput) -> float:
    return (given.current or 0.0) / given.threshold


def _sentence(given: ScaleInput, ready: int, wanted: int) -> str:
    assert given.current is not None
    assert given.wants is not None
    current, threshold = number(given.current), number(given.threshold)
    seen = f"{given.metric} {current} per replica over {number(WINDOW_S[given.metric])} s on {replicas(ready)}"
    if _tolerated(given.current * ready, wanted, given.threshold):
        share = "" if ready == wanted else f" for the {wanted} wanted"
        return f"{seen} is within {TOLERANCE:.0%} of {threshold}{share}"
    side = "above" if given.current > given.threshold else "below" if given.current < given.threshold else "at"
    return f"{seen} is {side} {threshold}: ceil({ready} × {current} / {threshold}) = {given.wants}"


def number(value: float) -> str:
    """At most two decimals, none where they say nothing."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def replicas(count: int) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{count} replica" if count == 1 else f"{count} replicas"


def waits(waiting: Waiting) -> str:
    """`3 requests wait, the first for 0.02 s`."""
    if waiting.held == 1:
        return f"1 request waits for {number(waiting.oldest_s)} s"
    return f"{waiting.held} requests wait, the first for {number(waiting.oldest_s)} s"
