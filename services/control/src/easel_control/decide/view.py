"""What others have told about a service, sorted by what control asks of it: which replicas serve, come up, are left
over, or cannot run. Status, rollouts and explanations all read the same view.

Replicas are told apart by (revision, restart nonce), not by generation: a revert goes back to older ones.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from easel_contracts.facts import ReplicaState, RouteState, ScaleState
from easel_contracts.spec import RevisionSpec
from easel_control.model import ServiceRow

DEFINITE = frozenset(
    ("CrashLoop", "MountFailed", "ImageFailed", "RequirementsFailed", "CodeUnavailable", "CommandFailed", "WrongPort",
     "AgentError")
)  # fmt: skip
"""Causes that do not go away by themselves."""
TOLERATED_RESTARTS = 3
"""Restarts after which any other cause counts as definite."""
FALLS = frozenset(("Exited", "OutOfMemory", "CrashLoop", "ProbeFailed"))
"""Causes by which a process that was up ends."""
NO_ROOM = frozenset(("NoCapacity", "NoNode", "NoRuntime", "TooLarge"))


class World(Struct, frozen=True, kw_only=True):
    """What others have told about a service."""

    replicas: tuple[ReplicaState, ...]
    """Living ones."""
    failed: tuple[ReplicaState, ...] = ()
    """Ended by failing, newest first."""
    route: RouteState | None = None
    scale: ScaleState | None = None
    now: datetime


class View(Struct, frozen=True, kw_only=True):
    """The world of a service that should run, sorted. Replicas that were isolated by hand are not in it."""

    total: int
    serving: tuple[ReplicaState, ...]
    """Of the present revision, ready and in the gateway's route."""
    coming: tuple[ReplicaState, ...]
    """Of the present revision, not serving, not draining."""
    older: tuple[ReplicaState, ...]
    """Of any other revision or restart, not draining."""
    older_serving: tuple[ReplicaState, ...]
    failed: tuple[ReplicaState, ...]
    """Of the present revision, ended by failing, newest first."""
    holding: bool
    """Requests that come while nothing serves are treated as the service asks: they wait at the gateway, or are
    answered 503 where it asks for that."""

    @property
    def running(self) -> int:
        """Replicas that answer requests, those of an older revision too, up to the number wanted."""
        return min(self.total, len(self.serving) + len(self.older_serving))

    @property
    def surplus(self) -> int:
        """Replicas of the present revision above the number wanted."""
        return max(0, len(self.serving) + len(self.coming) - self.total)

    @property
    def stuck(self) -> ReplicaState | None:
        """A replica of the present revision that cannot run."""
        return next((r for r in self.coming if is_stuck(r)), self.failed[0] if self.failed else None)

    @property
    def no_room(self) -> ReplicaState | None:
        """A replica of the present revision that no node takes."""
        return next((r for r in self.coming if r.cause in NO_ROOM), None)


def view_of(row: ServiceRow, world: World) -> View:
    """The world as it looks for the row's present revision."""
    routed = frozenset(world.route.replicas) if world.route is not None else frozenset[str]()
    active = [r for r in world.replicas if r.state != "draining" and r.out_of_traffic != "isolated"]
    present = [r for r in active if is_present(row, r)]
    serving = tuple(r for r in present if r.state == "ready" and r.id in routed and not r.out_of_traffic)
    older = tuple(r for r in active if r not in present)
    return View(
        total=wanted_count(row, world.scale),
        serving=serving,
        coming=tuple(r for r in present if r not in serving),
        older=older,
        older_serving=tuple(r for r in older if r.id in routed and not r.out_of_traffic),
        failed=tuple(r for r in world.failed if is_present(row, r)),
        holding=_holding(row, world.route),
    )


def wanted_count(row: ServiceRow, scale: ScaleState | None) -> int:
    """Replicas that should be there; the same rule as the scheduler's (DESIGN 4b.1)."""
    if row.wanted != "running":
        return 0
    if scale is not None and scale.generation >= max(row.instance_generation, row.autoscaling_generation):
        return scale.wanted
    if row.autoscaling is not None:
        return min(max(row.instance, row.autoscaling.min), row.autoscaling.max)
    return row.instance


def is_of(spec: RevisionSpec, replica: ReplicaState) -> bool:
    """Whether a replica runs exactly this: the same revision since the same restart."""
    return (replica.revision, replica.restart_nonce) == (spec.number, spec.restart_nonce)


def is_present(row: ServiceRow, replica: ReplicaState) -> bool:
    """Whether a replica runs the present revision, started after the last restart; not an earlier service's."""
    return is_of(row.revision, replica) and replica.generation >= row.first_generation


def intercepts(row: ServiceRow) -> bool:
    """Whether requests shall wait while there is no replica."""
    return row.autoscaling is None or row.autoscaling.intercept_traffic


def is_stuck(replica: ReplicaState) -> bool:
    """Whether a living replica will not come up by itself."""
    if not replica.cause or replica.cause in NO_ROOM or replica.state == "ready":
        return False
    return replica.cause in DEFINITE or replica.restarts >= TOLERATED_RESTARTS


def has_fallen(replica: ReplicaState) -> bool:
    """Whether a living replica had come up, and its process ended by itself: it is being started again."""
    again = replica.state in ("starting", "fetching") and replica.restarts > 0 and not replica.out_of_traffic
    return again and replica.cause in FALLS and "probe" in replica.phase_s


def _holding(row: ServiceRow, route: RouteState | None) -> bool:
    if route is None or route.state != "probed":
        return False
    return route.holding or (not intercepts(row) and not route.replicas)
