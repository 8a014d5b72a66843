"""Small worlds for the scheduler's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from easel_contracts.facts import Rollout, RouteState, ScaleState, ServiceState
from easel_contracts.spec import Resources, RevisionSpec, RolloutPolicy
from easel_scheduler.decide.world import Node, Replica, Snapshot

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after the tests' beginning."""
    return T0 + timedelta(seconds=seconds)


def revision(number: int = 1, *, cpu: float = 1.0, memory_mib: int = 100, **more: Any) -> RevisionSpec:
    """A revision that asks for one core and 100 MiB."""
    return RevisionSpec(number=number, resources=Resources(cpu=cpu, memory_mib=memory_mib), port=8000,
                        command="serve", **more)  # fmt: skip


def service(instance: int = 1, rev: RevisionSpec | None = None, **more: Any) -> ServiceState:
    """A running service."""
    given = {"uid": "u1", "name": "ocr", "generation": 1, "wanted": "running", **more}
    return ServiceState(instance=instance, revision=rev or revision(), **given)


def rolling(
    instance: int, *, share: int = 100, new: RevisionSpec | None = None, old: RevisionSpec | None = None,
    paused: bool = False, interrupt: bool = False, surge: int | str = "2%", unavailable: int | str = 0,
) -> ServiceState:  # fmt: skip
    """A service whose revision 2 takes the place of its revision 1."""
    rollout = Rollout(stable=old or revision(1), share_percent=share, state="paused" if paused else "rolling",
                      interrupt=interrupt)  # fmt: skip
    policy = RolloutPolicy(max_surge=surge, max_unavailable=unavailable)
    return service(instance, new or revision(2), rollout=rollout, rolling=policy, generation=2)


def replica(name: str = "a", state: str = "ready", rev: RevisionSpec | None = None, **more: Any) -> Replica:
    """A replica; ready unless told otherwise."""
    ready_at = T0 if state in ("ready", "unready", "draining") else None
    given = {
        "workspace": "default", "service": "ocr", "service_uid": "u1", "generation": 1, "created_at": T0,
        "state_at": T0, "ready_at": ready_at, "run": None if state in ("pending", "placed") else "run-1",
        "node": None if state == "pending" else "n1", **more,
    }  # fmt: skip
    return Replica(id=name, spec=rev or revision(), state=state, **given)


def node(name: str = "n1", **more: Any) -> Node:
    """A ready node with eight cores and 8000 MiB."""
    given = {"state": "ready", "cpu": 8.0, "memory_mib": 8000, **more}
    return Node(id=name, **given)


def route(*replicas: str, draining: tuple[str, ...] = ()) -> RouteState:
    """An applied route."""
    return RouteState(service="ocr", generation=1, state="probed", version="v", replicas=replicas, draining=draining)


def scale(wanted: int, generation: int = 1, number: int = 1) -> ScaleState:
    """A decision of the autoscaler."""
    return ScaleState(service="ocr", generation=generation, number=number, before=0, wanted=wanted,
                      reason="Metrics", message="as asked")  # fmt: skip


def snapshot(*replicas: Replica, now: float = 0.0, **more: Any) -> Snapshot:
    """One roomy node, one service of one replica."""
    given = {"service": service(), "nodes": (node(),), **more}
    return Snapshot(now=at(now), replicas=replicas, **given)
