"""What a service's status is, from what is wanted and what replicas and gateway say.

Running means: a request would succeed. In detail, with `serving` = replicas of the present revision (and restart) that
are ready, not taken out of traffic, and that the router's last `route.applied` holds:

- wanted deleted → Deleting, until no replica lives and the route is gone; then the row may go.
- wanted stopped → Stopping, until no replica lives; then Stopped.
- no replica wanted (the autoscaler's decision) → Scaling while some are left, then Running (ScaledToZero) once the
  gateway holds requests for the service: the next one starts a replica and is answered by it. Where the service asks
  that requests are not held (`interceptTraffic: false`), this is the one case of Running in which a request gets 503:
  that is what was asked for, and the message says so.
- a rollout is on and something answers → Updating, with what it does or waits for: RollingOut, RolloutPaused, Canary,
  or the cause for which there is no room.
- serving ≥ wanted and nothing older left → Running; with reason RolledBack where a rollout was taken back.
- nothing serves: Failed when a replica of the present revision cannot run (with its cause), else Updating while older
  replicas still answer, else Running (WakingUp) when replicas come up from zero without trouble and the gateway holds
  requests for them, else Waiting (also for NoCapacity: room may come).
- some serve, not all: Updating while older replicas are being replaced; Scaling when the number wanted grew since the
  service was last complete; Running (reason PartlyServing) when it had been complete, or when what is missing is stuck;
  Waiting otherwise, so that a first start counts as Running only when it is whole.

Replicas that were isolated by hand are alive and count for nothing here.
"""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.facts import ReplicaState
from easel_contracts.states import SERVICE
from easel_control.decide.hints import hint_for
from easel_control.decide.told import rolling_hint, rollout_told
from easel_control.decide.view import View, World, intercepts, view_of
from easel_control.model import ServiceRow


class Status(Struct, frozen=True, kw_only=True):
    """What to write."""

    status: str
    reason: str
    message: str
    total: int
    running: int
    settled: int
    phase_s: dict[str, float]
    proven: bool
    gone: bool = False
    """Deleted, and nothing is left: the row may go."""


Said = tuple[str, str, str]
"""(status, reason, message)."""


def status_of(row: ServiceRow, world: World) -> Status:
    """The status now; equal to what the row says when nothing changed. Every step it takes is in states.SERVICE."""
    if row.wanted == "deleted":
        return _deleting(row, world)
    if row.wanted == "stopped":
        return _stopping(row, world)
    view = view_of(row, world)
    target, reason, message = _running(row, view)
    status = _reachable(row.status, target)
    complete = status == "Running" and 0 < view.total <= len(view.serving)
    return Status(
        status=status, reason=reason if status == target else status, message=message, total=view.total,
        running=view.running, settled=view.total if complete else row.settled,
        phase_s=_phases(row, view, world) if complete and not row.phase_s else row.phase_s,
        proven=row.proven or (row.rollout is None and bool(view.serving)),
    )  # fmt: skip


def _running(row: ServiceRow, view: View) -> Said:
    """What is said of a service that should run."""
    serving = len(view.serving)
    if not view.total:
        return _at_zero(row, view)
    if not serving and not view.older_serving:
        return _none_answers(row, view)
    if row.rollout is not None:
        return _rolling_out(row, view)
    if serving >= view.total:
        return _whole(row, view)
    if not serving:
        return _older_answer(row, view)
    missing = _trouble(row, view) or _counts(view)
    if view.older:
        return "Updating", _replacing(row, "RollingOut"), _counts(view) + _meanwhile(row, view)
    if row.settled:
        if view.total > row.settled:
            return "Scaling", view.no_room.cause if view.no_room else "ScalingOut", missing
        return "Running", "PartlyServing", missing
    if view.stuck or view.no_room:
        return "Running", "PartlyServing", missing
    return "Waiting", "ReplicasNotReady", missing


def _at_zero(row: ServiceRow, view: View) -> Said:
    left = len(view.serving) + len(view.coming) + len(view.older)
    if left:
        return "Scaling", "ScalingIn", f"{_counts(view)}; no replica is wanted, {left} more are to end"
    if not view.holding:
        said = "no replica is wanted; the gateway does not hold requests for it yet"
        if row.status in ("Running", "Scaling", "Updating"):
            return "Scaling", "ScalingIn", said
        return "Waiting", "RouteNotReady", said
    then = f"; it will be of revision {row.revision.number}, as the rollout's first" if row.rollout is not None else ""
    if not intercepts(row):
        said = "no replica runs: a request is answered 503 and starts one (interceptTraffic is false)"
        return "Running", "ScaledToZero", said + then
    return "Running", "ScaledToZero", "no replica runs: the next request starts one and waits for it" + then


def _none_answers(row: ServiceRow, view: View) -> Said:
    """Neither the present revision nor an older one answers."""
    trouble = _trouble(row, view)
    if view.stuck:
        return "Failed", view.stuck.cause or "ReplicaFailed", trouble
    if view.no_room:
        return "Waiting", view.no_room.cause, trouble
    worst = next((r for r in view.coming if r.cause), None)
    if worst is None and _is_waking(row, view):
        return "Running", "WakingUp", f"{_counts(view)}; a replica comes up, requests wait for it at the gateway"
    if view.older or row.rollout is not None:
        return "Updating", _replacing(row, "RollingOut"), trouble or _counts(view)
    if row.status == "Creating" and not view.coming:
        return "Creating", row.reason, row.message
    return "Waiting", worst.cause if worst else "ReplicasNotReady", trouble or _counts(view)


def _is_waking(row: ServiceRow, view: View) -> bool:
    """From zero, without trouble, and with its requests held."""
    may_be_at_zero = row.autoscaling is not None and row.autoscaling.min == 0
    return may_be_at_zero and view.holding and intercepts(row) and row.status in ("Running", "Scaling")


def _rolling_out(row: ServiceRow, view: View) -> Said:
    rollout = row.rollout
    assert rollout is not None
    counts = _counts(view)
    if rollout.split is not None and not view.no_room:
        return "Updating", "Canary", f"{counts}; {rollout_told(row, view)}{rolling_hint(row)}"
    if rollout.state == "paused":
        return "Updating", "RolloutPaused", f"{counts}; {rollout_told(row, view)}{rolling_hint(row)}"
    if view.no_room:
        hint = rolling_hint(row, view.no_room.cause)
        return "Updating", view.no_room.cause, f"{counts}; {rollout_told(row, view)}; {_words(view.no_room)}{hint}"
    return "Updating", "RollingOut", f"{counts}; {rollout_told(row, view)}"


def _whole(row: ServiceRow, view: View) -> Said:
    if view.older:
        left = f"{_counts(view)}; {len(view.older)} of another revision are left"
        return "Updating", _replacing(row, "ReplacingOld"), left
    if view.surplus:
        return "Scaling", "ScalingIn", f"{_counts(view)}; {view.surplus} more are to end"
    if row.reverted is not None:
        return "Running", "RolledBack", f"Service is running; {row.reverted.message}"
    return "Running", "Running", "Service is running"


def _older_answer(row: ServiceRow, view: View) -> Said:
    """No rollout, and only replicas of another revision answer: those of one that was given up, or never proven."""
    trouble = _trouble(row, view, f"; {len(view.older_serving)} replicas of another revision go on serving")
    if view.stuck:
        return "Failed", view.stuck.cause or "ReplicaFailed", trouble
    reason = view.no_room.cause if view.no_room else _replacing(row, "RollingOut")
    return "Updating", reason, trouble or _counts(view) + _meanwhile(row, view)


def _replacing(row: ServiceRow, otherwise: str) -> str:
    return "RollingBack" if row.reverted is not None else otherwise


def _meanwhile(row: ServiceRow, view: View) -> str:
    """What comes up and what serves meanwhile; empty: nothing older serves."""
    if not view.older_serving:
        return ""
    comes = f"({len(view.serving)} of {view.total} serve)"
    olds = sorted({r.revision for r in view.older_serving})
    if olds == [row.revision.number]:
        return f"; new replicas come up {comes} while those from before the restart serve"
    names = ", ".join(str(number) for number in olds)
    return f"; revision {row.revision.number} comes up {comes} while revision {names} serves"


def _trouble(row: ServiceRow, view: View, also: str = "") -> str:
    """The replica that explains what is missing, in words, and what to do; empty: none has a cause."""
    worst = view.stuck or view.no_room or next((r for r in view.coming if r.cause), None)
    if worst is None:
        return ""
    hint = hint_for(worst.cause, row.name)
    return f"{_counts(view)}; {_words(worst)}{also}" + (f" Hint: {hint}" if hint else "")


def _words(replica: ReplicaState) -> str:
    return f"replica {replica.id}: {replica.message or replica.cause}"


def _counts(view: View) -> str:
    return f"Total {view.total}, Pending {view.total - view.running}, Running {view.running}"


def _stopping(row: ServiceRow, world: World) -> Status:
    left = len(world.replicas)
    status = "Stopping" if left else "Stopped"
    message = f"replicas that have still to end: {left}" if left else "Service is stopped"
    return Status(
        status=_reachable(row.status, status), reason="Stopping" if left else "Stopped", message=message, total=0,
        running=0, settled=0, phase_s=row.phase_s, proven=row.proven,
    )  # fmt: skip


def _deleting(row: ServiceRow, world: World) -> Status:
    left = len(world.replicas)
    routed = world.route is not None and world.route.state != "removed"
    message = f"replicas that have still to end: {left}" if left else "its route is being removed"
    return Status(
        status="Deleting", reason="Deleting", message=message, total=0, running=0, settled=0, phase_s=row.phase_s,
        proven=row.proven, gone=not left and not routed,
    )  # fmt: skip


def _reachable(before: str, target: str) -> str:
    """`target`, or the step towards it that the table of states allows."""
    if target == before or target in SERVICE[before]:
        return target
    for way in ("Waiting", "Starting", "Stopping"):
        if way in SERVICE[before] and (target == way or target in SERVICE[way]):
            return way
    return before


def _phases(row: ServiceRow, view: View, world: World) -> dict[str, float]:
    """Seconds from asked for to serving, by phase, of the replica that was first in its phases."""
    first = min(view.serving, key=lambda r: sum(r.phase_s.values()), default=None)
    phases = dict(first.phase_s) if first else {}
    if world.route is not None and world.route.apply_ms:
        phases["route"] = round(world.route.apply_ms / 1000, 4)
    phases["total"] = round(max((world.now - row.begun_at).total_seconds(), 0.0), 4)
    return phases
