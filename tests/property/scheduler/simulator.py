"""A small world in which plans are carried out, agents, routers, control and users act at random, and promises are
checked."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_contracts.facts import Rollout, RouteState, ScaleState, ServiceState
from easel_contracts.spec import RolloutPolicy, Split
from easel_contracts.states import REPLICA, step
from easel_scheduler.decide import asked
from easel_scheduler.decide.plan import plan
from easel_scheduler.decide.world import Identity, Node, Plan, Replica, Snapshot
from tests.property.scheduler.promises import check_promises
from tests.unit.scheduler.build import T0, revision, service


class World:
    """One service on some nodes."""

    def __init__(self, nodes: tuple[Node, ...], instance: int, rolling: RolloutPolicy | None = None) -> None:
        self.now = T0
        self.nodes = nodes
        self.service: ServiceState = service(instance, rolling=rolling or RolloutPolicy())
        self.newest = 1
        """Highest number of a revision."""
        self.scale: ScaleState | None = None
        self.route: RouteState | None = None
        self.replicas: dict[str, Replica] = {}
        self.neighbour_cpu = 0.0
        """What another service holds of the first node."""
        self._ids = count()

    def live(self) -> list[Replica]:
        return [r for r in self.replicas.values() if r.live]

    def active(self) -> list[Replica]:
        return [r for r in self.live() if r.state != "draining" and r.out_of_traffic != "isolated"]

    def available(self) -> list[Replica]:
        routed = set(self.route.replicas) if self.route else set()
        return [r for r in self.active() if r.in_traffic and r.id in routed]

    def identity(self) -> Identity:
        return Identity(self.service.uid, self.service.revision.number, self.service.revision.restart_nonce)

    def snapshot(self) -> Snapshot:
        known = {r.id: int(r.id[1:]) % 3 for r in self.active()}
        return Snapshot(now=self.now, service=self.service, scale=self.scale, route=self.route,
                        replicas=tuple(self.replicas.values()), nodes=self.loaded_nodes(), in_flight=known)  # fmt: skip

    def loaded_nodes(self) -> tuple[Node, ...]:
        loaded = []
        for number, node in enumerate(self.nodes):
            here = [r for r in self.live() if r.node == node.id]
            loaded.append(
                replace(
                    node,
                    cpu_reserved=sum(r.spec.resources.cpu for r in here) + (0 if number else self.neighbour_cpu),
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
        self.check()
        return found

    def apply(self, found: Plan) -> None:
        for new in found.create:
            name = f"r{next(self._ids)}"
            self.replicas[name] = Replica(
                id=name, workspace="default", service="ocr", service_uid=self.service.uid,
                generation=self.service.generation, spec=new.spec,
                state="placed" if new.node else "pending", node=new.node, created_at=self.now, state_at=self.now,
            )  # fmt: skip
        for place in found.place:
            self.move(place.replica, "placed", node=place.node)
        for drain in found.drain:
            self.replicas[drain.replica] = asked.taken_out(self.replicas[drain.replica], "", self.now)
            self.move(drain.replica, "draining", draining_at=self.now, cause=drain.why.code)
        for stop in found.stop:
            self.move(stop.replica, "stopped")
        for out in found.take_out:
            self.replicas[out.replica] = asked.taken_out(self.replicas[out.replica], "restarting", self.now)

    def check(self) -> None:
        """What must hold of the rows after every plan."""
        for node in self.loaded_nodes():
            assert node.cpu_reserved <= node.cpu + 1e-6, "placed beyond a node's cores"
            assert node.memory_reserved_mib <= node.memory_mib, "placed beyond a node's memory"
        assert sum(r.out_of_traffic == "restarting" for r in self.active()) <= 1, "two soft restarts at once"

    # What others do.

    def agent_moves(self, number: int, state: str) -> None:
        """One of the replicas that can get there does; the newest is number 0."""
        able = [r for r in self.live() if r.node and state in REPLICA[r.state]]
        if able:
            self.move(able[-1 - number % len(able)].id, state)

    def neighbour_takes(self, cpu: float) -> None:
        """Another service is placed, as far as there is room, or ends."""
        self.neighbour_cpu = 0.0
        if self.nodes:
            first = self.loaded_nodes()[0]
            self.neighbour_cpu = min(cpu, max(first.cpu - first.cpu_reserved, 0.0))

    def agent_stops(self) -> None:
        """What drains has ended."""
        for r in self.live():
            if r.state == "draining":
                self.move(r.id, "stopped")

    def agent_restarts(self) -> None:
        """What was taken out of traffic for it gets its new process."""
        for r in self.active():
            if r.out_of_traffic == "restarting" and r.state in ("ready", "unready", "starting"):
                self.replicas[r.id] = replace(r, restart_done=r.restart_asked, out_of_traffic="", state="ready")

    def router_applies(self) -> None:
        ready = tuple(r.id for r in self.live() if r.in_traffic)
        draining = tuple(r.id for r in self.live() if r.state == "draining")
        self.route = RouteState(service="ocr", generation=1, state="probed", version="", replicas=ready,
                                draining=draining, split_permille=self._live_weight(ready))  # fmt: skip

    def _live_weight(self, ready: tuple[str, ...]) -> int | None:
        """What the router makes of the split: a side without a replica in traffic has no weight."""
        rollout = self.service.rollout
        if rollout is None or rollout.split is None:
            return None
        sides = {self.replicas[name].identity == self.identity() for name in ready}
        return rollout.split.weight_permille if len(sides) == 2 else 1000 * int(True in sides)

    def user_asks(self, number: int, what: str) -> None:
        """Something of one of the live replicas; what does not go is refused and changes nothing."""
        live = self.live()
        if not live:
            return
        r = live[number % len(live)]
        try:
            after = {
                "soft": lambda: asked.restarted(r),
                "dw": lambda: asked.replaced(r, now=False),
                "now": lambda: asked.replaced(r, now=True),
                "isolate": lambda: asked.isolated(r, isolated=True, now=self.now),
                "let back": lambda: asked.isolated(r, isolated=False, now=self.now),
            }[what]()
        except Conflict:
            return
        if after is not None:
            self.replicas[r.id] = after

    def release(self, cpu: float, memory_mib: int = 100, share_percent: int = 100, *, interrupt: bool = False) -> None:
        """A new revision, beside the one before; released in mid-rollout, the stable one stays."""
        self.newest += 1
        before = self.service.rollout.stable if self.service.rollout else self.service.revision
        rollout = Rollout(stable=before, share_percent=share_percent, interrupt=interrupt)
        self.control(revision=revision(self.newest, cpu=cpu, memory_mib=memory_mib), rollout=rollout)

    def rollout(self, **changes: object) -> None:
        """Control goes on with the rollout, or pauses it."""
        if self.service.rollout is not None:
            self.control(rollout=replace(self.service.rollout, **changes))

    def split(self, weight_permille: int, *, keep_stable: bool = False) -> None:
        """A canary shares the requests between the two."""
        self.rollout(split=Split(weight_permille=weight_permille), keep_stable=keep_stable)

    def finish(self) -> None:
        self.control(rollout=None)

    def revert(self) -> None:
        if self.service.rollout is not None:
            self.control(revision=self.service.rollout.stable, rollout=None)

    def control(self, **changes: object) -> None:
        self.service = replace(self.service, generation=self.service.generation + 1, **changes)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def everyone_works(self) -> None:
        """Agents and the router do what is theirs, and it succeeds."""
        self.agent_stops()
        for r in self.live():
            if r.node and r.state != "ready":
                self.move(r.id, "ready")
        self.agent_restarts()
        self.router_applies()

    def settle(self) -> bool:
        """Everyone does his work, everything succeeds; whether the world came to rest."""
        for _ in range(300):
            found = self.plan_once()
            self.everyone_works()
            self.pass_time(1 if not found.wake_after_s else found.wake_after_s + 0.001)
            if not plan(self.snapshot()).changes and not found.changes and not found.wait:
                return True
        return False
