"""What a service's status is, from what is wanted and what replicas and gateway say.

Running means: a request would succeed. In detail, with `serving` = replicas of the present revision (and restart) that
are ready and that the router's last `route.applied` holds:

- wanted deleted → Deleting, until no replica lives and the route is gone; then the row may go.
- wanted stopped → Stopping, until no replica lives; then Stopped.
- serving ≥ wanted and nothing older left → Running.
- nothing serves: Failed when a replica of the present revision cannot run (with its cause), else Updating while older
  replicas still answer, else Waiting (also for NoCapacity: room may come).
- some serve, not all: Updating while older replicas are being replaced; Scaling when the number wanted grew since the
  service was last complete; Running (reason PartlyServing) when it had been complete, or when what is missing is stuck;
  Waiting otherwise, so that a first start counts as Running only when it is whole.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from easel_contracts.facts import ReplicaState, RouteState, ScaleState
from easel_contracts.states import SERVICE
from easel_control.decide.hints import hint_for
from easel_control.model import ServiceRow

DEFINITE = frozenset(
    ("CrashLoop", "MountFailed", "RequirementsFailed", "CodeUnavailable", "CommandFailed", "WrongPort", "AgentError")
)
"""Causes that do not go away by themselves."""
TOLERATED_RESTARTS = 3
"""Restarts after which any other cause counts as definite."""
NO_ROOM = frozenset(("NoCapacity", "NoNode", "TooLarge"))


class World(Struct, frozen=True, kw_only=True):
    """What others have told about a service."""

    replicas: tuple[ReplicaState, ...]
    """Living ones."""
    failed: tuple[ReplicaState, ...] = ()
    """Ended by failing, newest first."""
    route: RouteState | None = None
    scale: ScaleState | None = None
    now: datetime


class Status(Struct, frozen=True, kw_only=True):
    """What to write."""

    status: str
    reason: str
    message: str
    total: int
    running: int
    settled: int
    phase_s: dict[str, float]
    gone: bool = False
    """Deleted, and nothing is left: the row may go."""


class _View(Struct, frozen=True, kw_only=True):
    """The world, sorted."""

    total: int
    serving: tuple[ReplicaState, ...]
    coming: tuple[ReplicaState, ...]
    """Of the present revision, not serving, not draining."""
    older: tuple[ReplicaState, ...]
    older_serving: int
    rollout: str
    """What comes up and what serves meanwhile; empty: nothing older serves."""
    stuck: ReplicaState | None
    """A replica of the present revision that cannot run."""
    no_room: ReplicaState | None
    surplus: int

    @property
    def running(self) -> int:
        """Replicas that answer requests, those of an older revision too, up to the number wanted."""
        return min(self.total, len(self.serving) + self.older_serving)


def wanted_count(row: ServiceRow, scale: ScaleState | None) -> int:
    """Replicas that should be there; the same rule as the scheduler's (DESIGN 4b.1)."""
    if row.wanted != "running":
        return 0
    if scale is not None and scale.generation >= max(row.instance_generation, row.autoscaling_generation):
        return scale.wanted
    if row.autoscaling is not None:
        return min(max(row.instance, row.autoscaling.min), row.autoscaling.max)
    return row.instance


def status_of(row: ServiceRow, world: World) -> Status:
    """The status now; equal to what the row says when nothing changed. Every step it takes is in states.SERVICE."""
    view = _view(row, world)
    if row.wanted == "deleted":
        return _deleting(row, world)
    if row.wanted == "stopped":
        return _stopping(row, world)
    target, reason, message = _running(row, view)
    status = _reachable(row.status, target)
    complete = status == "Running" and len(view.serving) >= view.total
    return Status(
        status=status, reason=reason if status == target else status, message=message, total=view.total,
        running=view.running, settled=view.total if complete else row.settled,
        phase_s=_phases(row, view, world) if complete and not row.phase_s else row.phase_s,
    )  # fmt: skip


def _view(row: ServiceRow, world: World) -> _View:
    routed = frozenset(world.route.replicas) if world.route is not None else frozenset[str]()
    active = [r for r in world.replicas if r.state != "draining"]
    present = [r for r in active if is_present(row, r)]
    serving = tuple(r for r in present if r.state == "ready" and r.id in routed)
    coming = tuple(r for r in present if r not in serving)
    older = tuple(r for r in active if r not in present)
    total = wanted_count(row, world.scale)
    failed = next((r for r in world.failed if is_present(row, r)), None)
    still = [r for r in older if r.id in routed]
    return _View(
        total=total, serving=serving, coming=coming, older=older, older_serving=len(still),
        rollout=_rollout(row, len(serving), total, still),
        stuck=next((r for r in coming if _is_stuck(r)), failed),
        no_room=next((r for r in coming if r.cause in NO_ROOM), None),
        surplus=max(0, len(present) - total),
    )  # fmt: skip


def _rollout(row: ServiceRow, serving: int, total: int, still: list[ReplicaState]) -> str:
    if not still:
        return ""
    olds = sorted({r.revision for r in still})
    if olds == [row.revision.number]:
        return f"; new replicas come up ({serving} of {total} serve) while those from before the restart serve"
    names = ", ".join(str(number) for number in olds)
    return f"; revision {row.revision.number} comes up ({serving} of {total} serve) while revision {names} serves"


def is_present(row: ServiceRow, replica: ReplicaState) -> bool:
    """Whether a replica runs the present revision, started after the last restart."""
    return replica.revision == row.revision.number and replica.generation >= row.revision_generation


def _is_stuck(replica: ReplicaState) -> bool:
    if not replica.cause or replica.cause in NO_ROOM or replica.state == "ready":
        return False
    return replica.cause in DEFINITE or replica.restarts >= TOLERATED_RESTARTS


def _running(row: ServiceRow, view: _View) -> tuple[str, str, str]:
    """(status, reason, message) of a service that should run."""
    serving = len(view.serving)
    if serving >= view.total and view.total > 0:
        return _whole(view)
    if not serving:
        return _none_serves(row, view)
    missing = _trouble(view) or _counts(view)
    if view.older:
        return "Updating", "RollingOut", _counts(view) + view.rollout
    if row.settled:
        if view.total > row.settled:
            return "Scaling", view.no_room.cause if view.no_room else "ScalingOut", missing
        return "Running", "PartlyServing", missing
    if view.stuck or view.no_room:
        return "Running", "PartlyServing", missing
    return "Waiting", "ReplicasNotReady", missing


def _whole(view: _View) -> tuple[str, str, str]:
    if view.older:
        return "Updating", "ReplacingOld", f"{_counts(view)}; {len(view.older)} of an older revision are left"
    if view.surplus:
        return "Scaling", "ScalingIn", f"{_counts(view)}; {view.surplus} more are to end"
    return "Running", "Running", "Service is running"


def _none_serves(row: ServiceRow, view: _View) -> tuple[str, str, str]:
    trouble = _trouble(view)
    kept = f"; {view.older_serving} replicas of an older revision go on serving" if view.older_serving else ""
    if view.stuck:
        return "Failed", view.stuck.cause or "ReplicaFailed", trouble + kept
    if view.older:
        reason = view.no_room.cause if view.no_room else "RollingOut"
        return "Updating", reason, trouble + kept if trouble else _counts(view) + view.rollout
    if view.no_room:
        return "Waiting", view.no_room.cause, trouble
    if row.status == "Creating" and not view.coming:
        return "Creating", row.reason, row.message
    worst = next((r for r in view.coming if r.cause), None)
    return "Waiting", worst.cause if worst else "ReplicasNotReady", trouble or _counts(view)


def _trouble(view: _View) -> str:
    """The replica that explains what is missing, in words; empty: none has a cause."""
    worst = view.stuck or view.no_room or next((r for r in view.coming if r.cause), None)
    if worst is None:
        return ""
    said = worst.message or worst.cause
    hint = hint_for(worst.cause)
    return f"{_counts(view)}; replica {worst.id}: {said}" + (f" Hint: {hint}" if hint else "")


def _counts(view: _View) -> str:
    return f"Total {view.total}, Pending {view.total - view.running}, Running {view.running}"


def _stopping(row: ServiceRow, world: World) -> Status:
    left = len(world.replicas)
    status = "Stopping" if left else "Stopped"
    message = f"replicas that have still to end: {left}" if left else "Service is stopped"
    return Status(
        status=_reachable(row.status, status), reason="Stopping" if left else "Stopped", message=message, total=0,
        running=0, settled=0, phase_s=row.phase_s,
    )  # fmt: skip


def _deleting(row: ServiceRow, world: World) -> Status:
    left = len(world.replicas)
    routed = world.route is not None and world.route.state != "removed"
    message = f"replicas that have still to end: {left}" if left else "its route is being removed"
    return Status(
        status="Deleting", reason="Deleting", message=message, total=0, running=0, settled=0, phase_s=row.phase_s,
        gone=not left and not routed,
    )  # fmt: skip


def _reachable(before: str, target: str) -> str:
    """`target`, or the step towards it that the table of states allows."""
    if target == before or target in SERVICE[before]:
        return target
    for way in ("Waiting", "Starting", "Stopping"):
        if way in SERVICE[before] and (target == way or target in SERVICE[way]):
            return way
    return before


def _phases(row: ServiceRow, view: _View, world: World) -> dict[str, float]:
    """Seconds from asked for to serving, by phase, of the replica that was first in its phases."""
    first = min(view.serving, key=lambda r: sum(r.phase_s.values()), default=None)
    phases = dict(first.phase_s) if first else {}
    if world.route is not None and world.route.apply_ms:
        phases["route"] = round(world.route.apply_ms / 1000, 4)
    phases["total"] = round(max((world.now - row.begun_at).total_seconds(), 0.0), 4)
    return phases
