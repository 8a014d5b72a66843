"""A small world in which plans are carried out, agents and routers act at random, and promises are checked."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

from msgspec.structs import replace

from easel_contracts.facts import RouteState, ScaleState, ServiceState
from easel_contracts.states import REPLICA, step
from easel_scheduler.decide.plan import plan, surge
from easel_scheduler.decide.wanted import wanted
from easel_scheduler.decide.world import Identity, Node, Plan, Replica, Snapshot
from tests.unit.scheduler.build import T0, revision, service


class World:
    """One service on some nodes."""

    def __init__(self, nodes: tuple[Node, ...], instance: int) -> None:
        self.now = T0
        self.nodes = nodes
        self.service: ServiceState = service(instance)
        self.scale: ScaleState | None = None
        self.route: RouteState | None = None
        self.replicas: dict[str, Replica] = {}
        self._ids = count()

    def live(self) -> list[Replica]:
        return [r for r in self.replicas.values() if r.live]

    def active(self) -> list[Replica]:
        return [r for r in self.live() if r.state != "draining"]

    def identity(self) -> Identity:
        return Identity(self.service.uid, self.service.revision.number, self.service.revision.restart_nonce)

    def snapshot(self) -> Snapshot:
        return Snapshot(now=self.now, service=self.service, scale=self.scale, route=self.route,
                        replicas=tuple(self.replicas.values()), nodes=self.loaded_nodes())  # fmt: skip

    def loaded_nodes(self) -> tuple[Node, ...]:
        loaded = []
        for node in self.nodes:
            here = [r for r in self.live() if r.node == node.id]
            loaded.append(
                replace(
                    node,
                    cpu_reserved=sum(r.spec.resources.cpu for r in here),
                    memory_reserved_mib=sum(r.spec.resources.memory_mib for r in here),
                    of_service=len(here),
                )
            )
        return tuple(loaded)

    def move(self, name: str, state: str, **more: object) -> None:
        """One legal step of a replica; raises IllegalTransition otherwise."""
        r = self.replicas[name]
        step("replica", REPLICA, r.state, state)
        ended = self.now if state in ("stopped", "failed", "lost") else None
        ready_at = r.ready_at or (self.now if state == "ready" else None)
        given = {"state_at": self.now, "ended_at": ended, "ready_at": ready_at, **more}
        self.replicas[name] = replace(r, state=state, **given)

    # What the scheduler does.

    def plan_once(self) -> Plan:
        """Plans, checks the promises, carries out."""
        before = self.snapshot()
        found = plan(before)
        check_promises(before, found)
        self.apply(found)
        check_world(self)
        return found

    def apply(self, found: Plan) -> None:
        for new in found.create:
            name = f"r{next(self._ids)}"
            self.replicas[name] = Replica(
                id=name, workspace="default", service="ocr", service_uid=self.service.uid,
                generation=self.service.generation, spec=self.service.revision,
                state="placed" if new.node else "pending", node=new.node, created_at=self.now, state_at=self.now,
            )  # fmt: skip
        for place in found.place:
            self.move(place.replica, "placed", node=place.node)
        for drain in found.drain:
            self.move(drain.replica, "draining", draining_at=self.now)
        for stop in found.stop:
            self.move(stop.replica, "stopped")

    # What others do.

    def agent_moves(self, number: int, state: str) -> None:
        """One of the replicas that can get there does; the newest is number 0."""
        able = [r for r in self.live() if r.node and state in REPLICA[r.state]]
        if able:
            self.move(able[-1 - number % len(able)].id, state)

    def router_applies(self) -> None:
        ready = tuple(r.id for r in self.live() if r.state == "ready")
        draining = tuple(r.id for r in self.live() if r.state == "draining")
        self.route = RouteState(service="ocr", generation=1, state="probed", version="", replicas=ready,
                                draining=draining)  # fmt: skip

    def release(self, cpu: float, memory_mib: int = 100) -> None:
        self.service = replace(
            self.service,
            generation=self.service.generation + 1,
            revision=revision(self.service.revision.number + 1, cpu=cpu, memory_mib=memory_mib),
        )

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self) -> bool:
        """Everyone does his work, everything succeeds; whether the world came to rest."""
        for _ in range(300):
            found = self.plan_once()
            for r in self.live():
                if r.state == "draining":
                    self.move(r.id, "stopped")
                elif r.node and r.state != "ready":
                    self.move(r.id, "ready")
            self.router_applies()
            self.pass_time(1 if not found.wake_after_s else found.wake_after_s + 0.001)
            if not plan(self.snapshot()).changes and not found.changes and not found.wait:
                return True
        return False


def check_promises(s: Snapshot, found: Plan) -> None:
    """What no plan may do."""
    assert s.service is not None
    want = wanted(s.service, s.scale).count
    drained = {d.replica for d in found.drain} | {x.replica for x in found.stop}
    active = [r for r in s.replicas if r.live and r.state != "draining"]
    _check_count(s, found, want, active, drained)
    _check_health(s, want, active, drained)
    touched = [*drained, *(p.replica for p in found.place)]
    assert len(touched) == len(set(touched)), "a replica is told two things at once"
    whys = [x.why for x in found.create] + [x.why for x in found.place] + [x.why for x in found.drain]
    for why in whys + [x.why for x in found.stop] + [x.why for x in found.wait]:
        assert why.code
        assert why.message


def _check_count(s: Snapshot, found: Plan, want: int, active: list[Replica], drained: set[str]) -> None:
    after = len(active) - len(drained) + len(found.create)
    if found.create:
        assert after <= want + surge(want), "more live replicas than wanted + surge"
    assert not (want == 0 and found.create)


def _check_health(s: Snapshot, want: int, active: list[Replica], drained: set[str]) -> None:
    """A healthy old replica goes only when enough new ones are ready and routed, or when fewer are wanted."""
    assert s.service is not None
    identity = Identity(s.service.uid, s.service.revision.number, s.service.revision.restart_nonce)
    routed = set(s.route.replicas) if s.route else set()
    old_left = [r for r in active if r.identity != identity and r.id not in drained]
    healthy_gone = [r for r in active if r.identity != identity and r.state == "ready" and r.id in drained]
    serving = [r for r in active if r.identity == identity and r.state == "ready" and r.id in routed]
    if healthy_gone:
        assert len([r for r in old_left if r.ready_at]) + len(serving) >= want, "a healthy old replica was spent"


def check_world(world: World) -> None:
    """What must hold of the rows after every plan."""
    for node in world.loaded_nodes():
        assert node.cpu_reserved <= node.cpu + 1e-6, "placed beyond a node's cores"
        assert node.memory_reserved_mib <= node.memory_mib, "placed beyond a node's memory"
