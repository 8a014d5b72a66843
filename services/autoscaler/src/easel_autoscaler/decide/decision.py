"""How many replicas a service shall have: the one place where `wanted` is decided.

Steps of `decide`, the first that answers counts:
  1. No autoscaler: `metadata.instance`.
  2. Never decided for this service, or its instance count was set after the last decision: that count, within limits;
     where that is 0 and requests wait, as many as a start from zero makes.
  3. The last decision lies outside [min, max]: the nearest limit, at once, load known or not.
  4. Requests wait and no replica is ready: what a start from zero makes, at once, whatever the windows say.
  5. No replica is wanted: so it stays. Only a request that waits brings one.
  6. `min` is 0, and for the whole grace (600 s) a replica was ready and no request came, was in flight or waited: 0, at
     once and however many there were, for EAS's rule is about requests and not about the windows. Not in the midst of
     a rollout, which is judged by its replicas.
  7. The load asks for more, for the whole scale-up window: that many, at once.
  8. The load asks for less, for the whole scale-down window: the most that was asked for within it, but no more than
     half of the replicas are taken away at a time, STEP_S apart. Never the last one: that is step 6 alone.
  9. Nothing changes. No metrics, no ready replica: nothing changes, for unknown is not zero.

A new generation that changes nothing is told too, so that nobody waits for a decision that does not come.
"""

from __future__ import annotations

from msgspec import Struct

from easel_autoscaler.decide.load import Load, Waiting
from easel_autoscaler.decide.recommend import Recommendation, from_zero, number, replicas, waits
from easel_autoscaler.decide.track import Track
from easel_contracts.facts import ScaleInput, ServiceState
from easel_contracts.spec import Autoscaling

STEP_S = 15.0
"""Shortest time between two steps that take replicas away."""


class Current(Struct, frozen=True, kw_only=True):
    """The decision that holds now, as stored."""

    uid: str
    """The service it was made for: a name may be used again."""
    generation: int
    number: int
    wanted: int
    row_version: int


class Decision(Struct, frozen=True, kw_only=True):
    """A decision to be written and told."""

    before: int
    wanted: int
    reason: str
    message: str
    inputs: tuple[ScaleInput, ...] = ()


class Held(Struct, frozen=True, kw_only=True):
    """Why the number of replicas stays as it is."""

    reason: str
    message: str


def decide(
    service: ServiceState,
    current: Current | None,
    load: Load | None,
    asked: Recommendation | None,
    track: Track,
    now_s: float,
) -> Decision | Held:
    """What to do now. `asked` is what the load asked for at the last look; `track` contains it already.

    A service that is stopped or deleted is held: control alone says that it has no replicas.
    """
    if service.wanted != "running":
        return Held(reason="NotRunning", message=f"{service.name} is {service.wanted}: nothing is decided for it")
    known = current if current and current.uid == service.uid else None
    if service.autoscaling is None:
        return _fixed(service, known)
    if known is None or service.instance_generation > known.generation:
        return _set(service, service.autoscaling, known, load.waiting if load else None)
    policy, wanted = service.autoscaling, known.wanted
    outcome = (
        _outside(policy, wanted)
        or _from_zero(policy, wanted, load)
        or _to_zero(service, policy, wanted, load, track, now_s)
        or _scaled(policy, wanted, asked, track, now_s)
    )
    if isinstance(outcome, Held) and known.generation < service.generation:
        message = f"generation {service.generation} keeps {replicas(known.wanted)}: {outcome.message}"
        return Decision(before=known.wanted, wanted=known.wanted, reason="Kept", message=message)
    return outcome


def _fixed(service: ServiceState, known: Current | None) -> Decision | Held:
    message = f"no autoscaler is set, so metadata.instance counts: {replicas(service.instance)}"
    if known and known.wanted == service.instance and known.generation >= service.generation:
        return Held(reason="Fixed", message=message)
    before = known.wanted if known else service.instance
    return Decision(before=before, wanted=service.instance, reason="Fixed", message=message)


def _set(service: ServiceState, policy: Autoscaling, known: Current | None, waiting: Waiting | None) -> Decision:
    wanted = min(max(service.instance, policy.min), policy.max)
    message = f"metadata.instance is {service.instance}, the autoscaler's limits are {policy.min} to {policy.max}"
    if wanted == 0 and waiting:
        wanted = from_zero(policy)
        message += f"; but {waits(waiting)}"
    before = known.wanted if known else wanted
    return Decision(before=before, wanted=wanted, reason="InstanceSet" if known else "Initial", message=message)


def _outside(policy: Autoscaling, wanted: int) -> Decision | None:
    limit = min(max(wanted, policy.min), policy.max)
    if limit == wanted:
        return None
    message = f"{wanted} is outside the autoscaler's limits {policy.min} to {policy.max}"
    return Decision(before=wanted, wanted=limit, reason="Limits", message=message)


def _from_zero(policy: Autoscaling, wanted: int, load: Load | None) -> Decision | Held | None:
    """The way up from where none is wanted or none is ready; None: neither is the case."""
    first = from_zero(policy)
    if load and load.waiting and wanted < first and (wanted == 0 or load.ready == 0):
        message = f"{waits(load.waiting)}, and no replica is {'ready' if wanted else 'wanted'}"
        return Decision(before=wanted, wanted=first, reason="Activated", message=message)
    if wanted == 0:
        message = f"no replica, and none is needed; the first request starts {first}"
        return Held(reason="AtZero", message=message)
    return None


def _to_zero(
    service: ServiceState, policy: Autoscaling, wanted: int, load: Load | None, track: Track, now_s: float
) -> Decision | Held | None:
    """The way down to zero; None: it is not due."""
    quiet_s = track.quiet_s(now_s)
    if policy.min > 0 or load is None or load.waiting or quiet_s is None or quiet_s < policy.zero_grace_s:
        return None
    if load.busy_s is not None and track.quiet_since_s is not None and load.busy_s > track.quiet_since_s:
        return None  # told since the last look
    seen = f"no request for {quiet_s:.0f} s, and {number(policy.zero_grace_s)} s are the grace"
    if service.rollout is not None:
        message = f"{seen}; but revision {service.revision.number} is being rolled out, so {replicas(wanted)} stay"
        return Held(reason="RolloutRuns", message=message)
    return Decision(before=wanted, wanted=0, reason="ScaledToZero", message=f"{seen}: no replica is needed")


def _scaled(
    policy: Autoscaling, wanted: int, asked: Recommendation | None, track: Track, now_s: float
) -> Decision | Held:
    if asked is None:
        message = f"no usable metrics of the last seconds, which is not zero load: stays at {replicas(wanted)}"
        return Held(reason="NoMetrics", message=message)
    if asked.wants > wanted:
        return _out(policy, wanted, asked, track, now_s)
    if asked.wants < wanted:
        return _in(policy, wanted, asked, track, now_s)
    quiet_s = track.quiet_s(now_s)
    if policy.min == 0 and wanted == 1 and quiet_s is not None:
        message = f"no request for {quiet_s:.0f} s of the {number(policy.zero_grace_s)} s after which none is kept"
        return Held(reason="IdleWaits", message=message)
    return Held(reason="OnTarget", message=asked.message)


def _out(policy: Autoscaling, wanted: int, asked: Recommendation, track: Track, now_s: float) -> Decision | Held:
    window_s = policy.scale_up_window_s
    least = min((span.wants for span in track.within(window_s, now_s)), default=asked.wants)
    if window_s > 0 and (track.covered_s(now_s) < window_s or least <= wanted):
        message = f"{asked.message}; not yet for the whole scale-up window of {number(window_s)} s"
        return Held(reason="ScaleOutWaits", message=message)
    target = min(least, asked.wants)
    return Decision(before=wanted, wanted=target, reason="ScaleOut", message=asked.message, inputs=asked.inputs)


def _in(policy: Autoscaling, wanted: int, asked: Recommendation, track: Track, now_s: float) -> Decision | Held:
    window_s = policy.scale_down_window_s
    covered_s = track.covered_s(now_s)
    if covered_s < window_s:
        message = f"{asked.message}; the load is known for {covered_s:.0f} s of the {number(window_s)} s it must last"
        return Held(reason="ScaleInWaits", message=message)
    highest = max((span.wants for span in track.within(window_s, now_s)), default=wanted)
    if highest >= wanted:
        message = f"{asked.message}; but {highest} were asked for within the last {number(window_s)} s"
        return Held(reason="ScaleInWaits", message=message)
    if track.decreased_s is not None and now_s - track.decreased_s < STEP_S:
        message = f"{asked.message}; the next step comes {number(STEP_S)} s after the last"
        return Held(reason="ScaleInSteps", message=message)
    target = max(highest, wanted - max(1, wanted // 2))
    message = asked.message
    if target > asked.wants:
        why = f"{highest} within the last {number(window_s)} s" if target == highest else "half at a time"
        message += f"; gradually to {target} ({why})"
    return Decision(before=wanted, wanted=target, reason="ScaleIn", message=message, inputs=asked.inputs)
