"""Why a service has as many replicas as it has: the answer to `easel explain`, in sentences with numbers."""

from __future__ import annotations

from msgspec import Struct

from easel_autoscaler.decide.decision import Current, Decision, Held
from easel_autoscaler.decide.load import Load
from easel_autoscaler.decide.recommend import from_zero, number, replicas, waits
from easel_contracts.facts import ServiceState

_HINTS = {
    "AtZero": "autoscaler.min 1 keeps a replica",
    "IdleWaits": "autoscaler.behavior.onZero.scaleDownGracePeriodSeconds sets how long that takes",
    "NoMetrics": "metrics come from the gateway once a replica is ready: see `easel status` and `easel w NAME`",
    "ScaleInWaits": "autoscaler.behavior.scaleDown.stabilizationWindowSeconds sets how long that takes",
    "ScaleOutWaits": "autoscaler.behavior.scaleUp.stabilizationWindowSeconds sets how long that takes",
}


class Line(Struct, frozen=True):
    """One reason: a constant, a sentence, what to do."""

    code: str
    message: str
    hint: str = ""


class Journal(Struct, frozen=True, kw_only=True):
    """The last decision, as the journal has it."""

    number: int
    ago_s: float
    before: int
    wanted: int
    reason: str
    message: str


def explain(
    service: ServiceState,
    current: Current | None,
    last: Journal | None,
    load: Load | None,
    now: Decision | Held,
    start_s: float | None = None,
) -> list[Line]:
    """The policy, the decision that holds and its reason, the load now, and what would have to happen for another.

    `start_s` is how long the last start from zero took; None: not seen.
    """
    lines = [_policy(service)]
    if service.wanted != "running":
        return [*lines, Line("NotRunning", f"{service.name} is {service.wanted}: it has no replicas to decide about")]
    if current is None or last is None:
        lines.append(Line("Undecided", f"nothing is decided yet; until then it is {replicas(service.instance)}"))
    else:
        change = f"{last.before} → {last.wanted}" if last.before != last.wanted else f"stays at {last.wanted}"
        message = f"decision {last.number}, {_ago(last.ago_s)} ago: {change}, {last.message}"
        lines.append(Line(last.reason, message))
    if service.autoscaling is None:
        return lines
    if now.reason == "AtZero":
        took = "" if start_s is None else f", which took about {start_s:.0f} s the last time"
        return [*lines, Line("AtZero", f"now: {now.message}{took}", _HINTS["AtZero"])]
    lines.append(_load(load, service))
    if isinstance(now, Held):
        lines.append(Line(now.reason, f"now: {now.message}", _HINTS.get(now.reason, "")))
    else:
        lines.append(Line(now.reason, f"about to change {now.before} → {now.wanted}: {now.message}"))
    return lines


def _policy(service: ServiceState) -> Line:
    policy = service.autoscaling
    if policy is None:
        return Line(
            "FixedPolicy", f"no autoscaler is set: metadata.instance asks for {replicas(service.instance)}",
            "easel scale NAME N, or an `autoscaler` section in service.json",
        )  # fmt: skip
    targets = " and ".join(f"{metric} {number(threshold)}" for metric, threshold in policy.targets)
    return Line(
        "AutoscalerPolicy",
        f"{policy.min} to {replicas(policy.max)} for {targets} per replica; more after "
        f"{number(policy.scale_up_window_s)} s, fewer after {number(policy.scale_down_window_s)} s"
        + ("" if policy.min else f"; none after {number(policy.zero_grace_s)} s without a request, then "
           f"{from_zero(policy)} at the first one"),
    )  # fmt: skip


def _load(load: Load | None, service: ServiceState) -> Line:
    if load is None:
        return Line("LoadUnknown", "no metrics of the last seconds: the load is unknown, not zero")
    if load.ready == 0:
        waiting = f"; {waits(load.waiting)}" if load.waiting else ""
        return Line("NoReadyReplica", f"no replica is ready, so the load per replica is unknown, not zero{waiting}")
    policy = service.autoscaling
    parts = []
    for metric, threshold in policy.targets if policy else ():
        value = load.per_replica(metric)
        seen = "not known yet" if value is None else number(value)
        parts.append(f"{metric} {seen} of {number(threshold)}")
    return Line("Load", f"per replica, on {load.ready} ready: {', '.join(parts)}")


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
