"""One service's plan: load, decide, write. Only the holder of the placement lease plans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from easel_contracts import ids
from easel_contracts.facts import RouteState, ScaleState, ServiceState
from easel_contracts.states import REPLICA, step
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.leases import Leases
from easel_kit.projection import Projection
from easel_kit.telemetry import get_logger, span_from
from easel_scheduler.decide.asked import taken_out
from easel_scheduler.decide.plan import counts, with_places
from easel_scheduler.decide.world import Create, Node, Place, Plan, Reason, Refusal, Replica, Snapshot, Wait
from easel_scheduler.in_flight import InFlight
from easel_scheduler.model import node_view
from easel_scheduler.nodes import Nodes
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store

PLACEMENT = "placement"
"""The lease under which replicas are made and placed: capacity is global, so there is one."""

log = get_logger("planner")


class Planner:
    """Reconciles services; the key is the service's name."""

    def __init__(self, store: Store, nodes: Nodes, leases: Leases, clock: Clock, settings: SchedulerSettings,
                 services: Projection[ServiceState], scales: Projection[ScaleState],
                 routes: Projection[RouteState], in_flight: InFlight,
                 on_changed: Callable[[Replica], None]) -> None:  # fmt: skip
        self._store, self._nodes, self._leases, self._clock = store, nodes, leases, clock
        self._settings = settings
        self._services, self._scales, self._routes = services, scales, routes
        self._in_flight = in_flight
        self._on_changed = on_changed
        self._placing = asyncio.Lock()
        self.traces: dict[str, str] = {}
        """Service → trace context of the newest fact about it."""

    async def keys(self) -> list[str]:
        """Services that exist or have replicas, for the resync."""
        told = [s.name for s in await self._services.all(self._settings.workspace)]
        return [*dict.fromkeys([*told, *await self._store.services()])]

    async def reconcile(self, name: str) -> float | None:
        """Brings the service's replicas to what is wanted."""
        token = self._leases.token_for(PLACEMENT)
        if token is None:
            return None
        snapshot = await self.load(name)
        if snapshot.service is None:
            return None
        with span_from(self.traces.get(name), "plan service", service=name):
            plan = await self._plan(snapshot, token)
            if plan.asks_in_flight:
                found = await self._in_flight.of(name)
                plan = await self._plan(replace(snapshot, in_flight=found), token)
        return plan.wake_after_s

    async def _plan(self, s: Snapshot, token: int) -> Plan:
        """Decides and writes; a plan that asks for the requests in flight is not written."""
        assert s.service is not None
        found = counts(s, s.service)
        if not found.places:
            plan = with_places(s, found)
            if not plan.asks_in_flight:
                await self._apply(s, plan, token, None)
            return plan
        async with self._placing:
            version = await self._store.placement_version()
            plan = with_places(replace(s, nodes=await self.nodes_for(s.service.name)), found)
            if not plan.asks_in_flight:
                await self._apply(s, plan, token, version)
            return plan

    async def service(self, name: str) -> ServiceState | None:
        """What control told last; None: nothing."""
        return await self._services.get(name, self._settings.workspace)

    async def load(self, name: str) -> Snapshot:
        """What is known of the service, without the nodes."""
        workspace = self._settings.workspace
        service = await self._services.get(name, workspace)
        replicas = await self._store.of_service(name, self._settings.keep_ended)
        if service is None:
            return Snapshot(now=self._clock.now(), service=None, replicas=replicas)
        return Snapshot(
            now=self._clock.now(), service=service, replicas=replicas,
            scale=await self._scales.get(name, workspace), route=await self._routes.get(name, workspace),
        )  # fmt: skip

    async def nodes_for(self, name: str, *, leaving: bool = True) -> tuple[Node, ...]:
        """Nodes with what is reserved on them. `leaving`: also by replicas that drain."""
        holders = await self._store.holders(leaving=leaving)
        return tuple(
            node_view(row, holders.get(row.id, ()), name, self._nodes.silent_s(row.id))
            for row in await self._store.nodes()
        )

    async def _apply(self, s: Snapshot, plan: Plan, token: int, version: int | None) -> None:
        """Writes the whole plan in one transaction; raises Stale and writes nothing when the world moved on."""
        assert s.service is not None
        rows = {r.id: r for r in s.replicas}
        waits = [w for w in plan.wait if w.replica is not None and _news(rows[w.replica], w)]
        if not plan.changes and not waits:
            return
        made = [self._new(s.service, new) for new in plan.create]
        changed = [(self._placed(rows[p.replica], p), p.why) for p in plan.place]
        changed += [(self._moved(rows[d.replica], "draining", d.why), d.why) for d in plan.drain]
        changed += [(self._moved(rows[x.replica], "stopped", x.why), x.why) for x in plan.stop]
        changed += [(taken_out(rows[x.replica], "restarting", self._clock.now()), x.why) for x in plan.take_out]
        changed += [(_waiting(rows[w.replica or ""], w.why, w.refusals), w.why) for w in waits]
        async with self._store.database.transaction() as connection:
            if version is not None and (plan.place or any(new.node for new in plan.create)):
                await self._store.place(connection, version, token)
            written = await self._write(connection, made, plan.create, changed, token)
        for r in written:
            log.info("planned", replica=r.id, state=r.state, node=r.node, cause=r.cause)
            self._on_changed(r)

    async def _write(self, connection: Connection, made: list[Replica], create: tuple[Create, ...],
                     changed: list[tuple[Replica, Reason]], token: int) -> list[Replica]:  # fmt: skip
        for r, new in zip(made, create, strict=True):
            await self._store.insert(connection, r, new.why, token)
        updated = [await self._store.update(connection, r, why, plan_token=token) for r, why in changed]
        return [*made, *updated]

    def _new(self, service: ServiceState, new: Create) -> Replica:
        now = self._clock.now()
        made = Replica(
            id=ids.replica_id(service.name, new.spec.number), workspace=self._settings.workspace,
            service=service.name, service_uid=service.uid, generation=service.generation, spec=new.spec,
            state="pending", created_at=now, state_at=now, traceparent=self.traces.get(service.name),
        )  # fmt: skip
        if new.node is None:
            return _waiting(made, new.why, new.refusals)
        return self._placed(made, Place(made.id, new.node, new.why, new.refusals))

    def _placed(self, r: Replica, place: Place) -> Replica:
        now = self._clock.now()
        return replace(
            r, state=step("replica", REPLICA, r.state, "placed"), state_at=now, placed_at=now, node=place.node,
            placement=place.why.message, refusals=place.refusals, cause="", message="",
        )  # fmt: skip

    def _moved(self, r: Replica, state: str, why: Reason) -> Replica:
        now = self._clock.now()
        if state == "draining":
            r = replace(taken_out(r, "", now), draining_at=now)
        return replace(
            r, state=step("replica", REPLICA, r.state, state), state_at=now, cause=why.code, message=why.message,
            ended_at=now if state == "stopped" else None,
        )  # fmt: skip


def _waiting(r: Replica, why: Reason, refusals: tuple[Refusal, ...]) -> Replica:
    return replace(r, cause=why.code, message=why.message, refusals=refusals)


def _news(r: Replica, wait: Wait) -> bool:
    return (r.cause, r.message) != (wait.why.code, wait.why.message)
