"""One replica's life on its node: reports in, commands out, each state written with its fact before anything follows.

Must never stop a replica because something could not be read: an orphan is one whose row was read and is missing or
final.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.facts import RouteState, TrafficState
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import RunSpec
from easel_contracts.states import REPLICA, IllegalTransition, step
from easel_kit.clock import Clock
from easel_kit.leases import Leases
from easel_kit.projection import Projection
from easel_kit.telemetry import current_traceparent, get_logger, span_from
from easel_scheduler.decide.fold import fold
from easel_scheduler.decide.life import RESEND_S, Again, Around, End, Halt, Rest, Start, next_step
from easel_scheduler.decide.pins import is_pinned, settled
from easel_scheduler.decide.world import Reason, Replica
from easel_scheduler.links import AgentLink, Links
from easel_scheduler.nodes import Nodes
from easel_scheduler.pins import Pins
from easel_scheduler.store import Store

REFUSED_AGAIN_S = 1.0
"""After a command that the agent refused or did not answer."""

log = get_logger("lives")


class Heard(Struct, frozen=True):
    """What an agent has said, at one moment: were its life looked at later than its reports, an agent that has just
    told of a new life, and of what it took over, would seem to have lost it."""

    run: str | None
    """Its life, once it has told about all it knows."""
    report: ReplicaReport | None


def _heard(link: AgentLink | None, replica_id: str) -> Heard:
    return Heard(link.run_id, link.reports.get(replica_id)) if link is not None else Heard(None, None)


class Lives:
    """Reconciles single replicas; the key is the replica's id."""

    def __init__(self, store: Store, links: Links, nodes: Nodes, leases: Leases, clock: Clock,
                 routes: Projection[RouteState], traffic: Projection[TrafficState], pins: Pins,
                 on_changed: Callable[[Replica], None]) -> None:  # fmt: skip
        self._store, self._links, self._nodes, self._leases, self._clock = store, links, nodes, leases, clock
        self._routes, self._traffic, self._pins = routes, traffic, pins
        self._on_changed = on_changed

    async def keys(self) -> list[str]:
        """Everything that lives or is reported, for the resync."""
        reported = [replica_id for link in self._links.all() for replica_id in link.reports]
        return [*dict.fromkeys([*await self._store.live_ids(), *reported])]

    async def reconcile(self, replica_id: str) -> float | None:
        """Takes over what the agent reported, then does the one thing that is next."""
        r = await self._store.replica(replica_id)
        if r is None or not r.live:
            return await self._clear_away(replica_id, r)
        if r.node is None or (token := self._leases.token_for(r.node)) is None:
            return None
        link = self._links.of_node(r.node)
        heard = _heard(link, r.id)
        if link is not None and heard.report is not None:
            r = await self._take(r, heard.report, link, token)
            if not r.live:
                return await self._clear_away(r.id, r)
        return await self._act(r, link, heard, token)

    async def _take(self, r: Replica, report: ReplicaReport, link: AgentLink, token: int) -> Replica:
        if "schedule" not in r.phase_s:
            waited_s = (r.placed_at or r.created_at) - r.created_at
            r = replace(
                r, phase_s={**r.phase_s, "schedule": round(waited_s.total_seconds() + self._start_s(r, link), 4)}
            )
        try:
            after = fold(r, report, self._clock.now())
        except IllegalTransition as error:
            log.error("report makes no sense and is dropped", replica=r.id, error=str(error), phase=report.phase)
            link.reports.pop(r.id, None)
            return r
        if after is None:
            return r
        return await self._write(r, after, Reason(after.cause or f"Replica{after.state.capitalize()}", after.message),
                                 token)  # fmt: skip

    def _start_s(self, r: Replica, link: AgentLink) -> float:
        """From placing to the Start command."""
        sent_s = link.sent_s(r.id, "start")
        if sent_s is None or r.placed_at is None:
            return 0.0
        return max((self._clock.now() - r.placed_at).total_seconds() - sent_s, 0.0)

    async def _act(self, r: Replica, link: AgentLink | None, heard: Heard, token: int) -> float | None:
        match next_step(r, await self._around(r, link, heard)):
            case Rest(after_s):
                return after_s
            case End(state, why):
                await self._end(r, state, why, token)
                return 0.0
            case Start():
                assert link is not None
                return await self._start(r, link, token)
            case Halt() as halt:
                assert link is not None
                return await self._halt(r, link, token, halt)
            case Again() as again:
                assert link is not None
                return await self._start_again(r, link, token, again)

    async def _around(self, r: Replica, link: AgentLink | None, heard: Heard) -> Around:
        assert r.node is not None
        leaving = r.state == "draining" or r.restarts_in_place
        command = "stop" if r.state == "draining" else "restart" if r.restarts_in_place else "start"
        told = await self._traffic.get(r.id, r.workspace) if leaving else None
        return Around(
            now=self._clock.now(),
            node_state=await self._nodes.state(r.node),
            run=heard.run,
            known=heard.report is not None,
            drained=told is not None and told.drain_number == r.drain_number,
            route=await self._routes.get(r.service, r.workspace) if leaving else None,
            sent_s=link.sent_s(r.id, command) if link else None,
        )

    async def _start(self, r: Replica, link: AgentLink, token: int) -> float:
        with span_from(r.traceparent, "start replica", replica=r.id, node=r.node or ""):
            spec = RunSpec(workspace=r.workspace, service=r.service, replica=r.id, revision=r.spec,
                           pins=await self._pins.of(r) if is_pinned(r.spec) else {},
                           traceparent=current_traceparent() or r.traceparent)  # fmt: skip
            try:
                await link.start(r.id, msgspec.msgpack.encode(spec), token)
            except grpc.aio.AioRpcError as error:
                log.warning("start not taken", replica=r.id, node=r.node, code=error.code().name, error=error.details())
                return REFUSED_AGAIN_S
        log.info("started", replica=r.id, node=r.node)
        return RESEND_S

    async def _start_again(self, r: Replica, link: AgentLink, token: int, again: Again) -> float:
        if again.why.code == "GraceOver":
            r = await self._say(r, again.why, token)
        try:
            known = await link.restart(r.id, token, number=again.number, grace_s=again.grace_s, sigterm=again.sigterm)
        except grpc.aio.AioRpcError as error:
            log.warning("restart not taken", replica=r.id, node=r.node, code=error.code().name, error=error.details())
            return REFUSED_AGAIN_S
        log.info("restarting", replica=r.id, node=r.node, number=again.number, reason=again.why.code, known=known)
        if known:
            return RESEND_S
        await self._end(r, "lost", Reason("UnknownToAgent", f"the agent of {r.node} has it no longer"), token)
        return 0.0

    async def _say(self, r: Replica, why: Reason, token: int) -> Replica:
        """Writes down what happens to it, once; why it was to happen stays."""
        if why.message in r.message:
            return r
        message = f"{r.message}; {why.message}" if r.message else why.message
        return await self._write(r, replace(r, message=message), why, token)

    async def _halt(self, r: Replica, link: AgentLink, token: int, halt: Halt) -> float:
        if halt.why.code == "GraceOver":
            r = await self._say(r, halt.why, token)
        try:
            known = await link.stop(r.id, token, grace_s=halt.grace_s, sigterm=halt.sigterm, idle=halt.idle)
        except grpc.aio.AioRpcError as error:
            log.warning("stop not taken", replica=r.id, node=r.node, code=error.code().name, error=error.details())
            return REFUSED_AGAIN_S
        log.info("stopping", replica=r.id, node=r.node, reason=halt.why.code, known=known)
        if known:
            return RESEND_S
        await self._end(r, "stopped", Reason(halt.why.code, f"{halt.why.message}; its agent does not run it"), token)
        return 0.0

    async def _end(self, r: Replica, state: str, why: Reason, token: int) -> None:
        step("replica", REPLICA, r.state, state)
        now = self._clock.now()
        after = replace(r, state=state, state_at=now, ended_at=now, cause=why.code, message=why.message)
        await self._write(r, after, why, token)

    async def _write(self, before: Replica, after: Replica, why: Reason, token: int) -> Replica:
        async with self._store.database.transaction() as connection:
            if after.pins != before.pins:
                now = self._clock.now()
                compared = settled(after, await self._pins.keep(connection, after, now), now)
                if compared is not after:
                    after, why = compared, Reason(compared.cause, compared.message)
            written = await self._store.update(connection, after, why, life_token=token)
        if written.state != before.state:
            log.info("replica", replica=written.id, state=written.state, reason=why.code, message=why.message)
        self._on_changed(written)
        return written

    async def _clear_away(self, replica_id: str, r: Replica | None) -> float | None:
        """Has an agent end what it runs, or keeps of a failure, without a living row. Logs stay with the agent."""
        link = self._links.knowing(replica_id)
        if link is None or link.node_id is None or link.run_id is None:
            return None
        report = link.reports[replica_id]
        if report.phase == "stopped":
            link.forget(replica_id)
            return None
        token = self._leases.token_for(link.node_id)
        sent_s = link.sent_s(replica_id, "stop")
        if token is None or (sent_s is not None and sent_s < RESEND_S):
            return RESEND_S
        row = "unknown" if r is None else r.state
        log.info("cleared away", replica=replica_id, node=link.node_id, row=row, phase=report.phase)
        try:
            known = await link.stop(replica_id, token, grace_s=0.0, sigterm=False, idle=True)
        except grpc.aio.AioRpcError as error:
            log.warning("stop not taken", replica=replica_id, code=error.code().name, error=error.details())
            return REFUSED_AGAIN_S
        if not known:
            link.forget(replica_id)
            return None
        return RESEND_S
