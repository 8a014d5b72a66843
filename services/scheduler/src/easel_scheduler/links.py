"""The connection to one agent: who it is, what it reports, when it was last heard. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import grpc.aio
import msgspec
from msgspec import Struct

from easel_contracts.runtime import ReplicaReport
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Stale
from easel_kit.grpc import channel
from easel_kit.telemetry import get_logger
from easel_proto.internal.v1 import agent_pb2, agent_pb2_grpc

DESCRIBE_S = 5.0
DESCRIBE_AGAIN_S = 15.0
"""How often a connected agent is asked anew what its node is, should a word that it changed have been lost."""

RECONNECT_S = 0.2
LEASE_AGAIN_S = 0.5

log = get_logger("links")


class LinkEvents(Struct, frozen=True, kw_only=True):
    """Whom a link tells what."""

    token_for: Callable[[str], int | None]
    """The fencing token when this copy may act on a node."""
    described: Callable[[AgentLink, agent_pb2.NodeDescription], Awaitable[None]]
    reported: Callable[[str], None]
    """A replica's report changed."""
    synced: Callable[[AgentLink], Awaitable[None]]
    """The agent has told about all it knows."""
    down: Callable[[AgentLink], None]


class AgentLink:
    """One agent's address. Connects, watches, connects again, for ever."""

    def __init__(self, address: str, token: str | None, clock: Clock, events: LinkEvents, *, heartbeat_s: float,
                 lease_s: float) -> None:  # fmt: skip
        self.address = address
        self._clock, self._events = clock, events
        self._heartbeat_s, self._lease_s = heartbeat_s, lease_s
        self._channel = channel(address, token, options={"grpc.max_reconnect_backoff_ms": 500})
        self.stub = agent_pb2_grpc.AgentStub(self._channel)
        self.node_id: str | None = None
        self.run_id: str | None = None
        """The agent's life, while it is connected and has told about all it knows; else None."""
        self.last_beat = clock.monotonic()
        """When it was last heard; before that, when we began to listen."""
        self.reports: dict[str, ReplicaReport] = {}
        """Newest report of each replica it knows."""
        self.sent: dict[tuple[str, str], float] = {}
        """(replica, command) → monotonic time of sending, in this connection."""
        self._complained = False

    async def run(self) -> None:
        """Keeps the connection for ever."""
        while True:
            try:
                await self._session()
                self._complained = False
            except (grpc.aio.AioRpcError, TimeoutError, Stale, *UNREACHABLE, asyncpg.PostgresError) as error:
                self._complain(error)
            finally:
                self._down()
            await self._clock.sleep(RECONNECT_S)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def start(self, replica_id: str, spec: bytes, token: int) -> None:
        """Sends Start; raises AioRpcError."""
        request = agent_pb2.StartRequest(fencing_token=token, replica_id=replica_id, spec_msgpack=spec)
        await self.stub.Start(request, timeout=DESCRIBE_S)
        self.sent[replica_id, "start"] = self._clock.monotonic()

    async def stop(self, replica_id: str, token: int, *, grace_s: float, sigterm: bool, idle: bool) -> bool:
        """Sends Stop; says whether the agent knew the replica. Raises AioRpcError."""
        request = agent_pb2.StopRequest(
            fencing_token=token, replica_id=replica_id, grace_s=grace_s, sigterm=sigterm, idle=idle
        )
        answer = await self.stub.Stop(request, timeout=DESCRIBE_S)
        self.sent[replica_id, "stop"] = self._clock.monotonic()
        return answer.known

    async def restart(self, replica_id: str, token: int, *, number: int, grace_s: float, sigterm: bool) -> bool:
        """Sends Restart; says whether the agent knew the replica. Raises AioRpcError."""
        request = agent_pb2.RestartRequest(
            fencing_token=token, replica_id=replica_id, number=number, grace_s=grace_s, sigterm=sigterm
        )
        answer = await self.stub.Restart(request, timeout=DESCRIBE_S)
        self.sent[replica_id, "restart"] = self._clock.monotonic()
        return answer.known

    def sent_s(self, replica_id: str, command: str) -> float | None:
        """Seconds since a command was sent in this connection."""
        at = self.sent.get((replica_id, command))
        return None if at is None else self._clock.monotonic() - at

    def forget(self, replica_id: str) -> None:
        """Drops what is remembered of a replica that has ended."""
        self.reports.pop(replica_id, None)
        for command in ("start", "restart", "stop"):
            self.sent.pop((replica_id, command), None)

    async def answers(self, within_s: float) -> bool:
        """Asks the agent now. Silence may be ours: this process was paused, or the database was away."""
        try:
            await self._describe(within_s)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def _describe(self, within_s: float) -> agent_pb2.NodeDescription:
        found = await self.stub.Describe(agent_pb2.DescribeRequest(), timeout=within_s, wait_for_ready=True)
        self.last_beat = self._clock.monotonic()
        return found

    async def _session(self) -> None:
        found = await self._describe(DESCRIBE_S)
        self.node_id = found.node_id
        if self._events.token_for(found.node_id) is None:
            await self._clock.sleep(LEASE_AGAIN_S)
            return
        await self._events.described(self, found)
        described = self._clock.monotonic()
        call = self.stub.Watch(agent_pb2.WatchRequest(heartbeat_s=self._heartbeat_s))
        try:
            while (event := await self._receive(call, found.agent_run_id)) is not None:
                if event.node_changed or self._clock.monotonic() - described >= DESCRIBE_AGAIN_S:
                    if not await self._described_again(found.agent_run_id):
                        return
                    described = self._clock.monotonic()
        finally:
            call.cancel()

    async def _described_again(self, run_id: str) -> bool:
        """Whether it is still the same life of the agent, as far as is known; then what it says now is told."""
        try:
            found = await self._describe(DESCRIBE_S)
        except grpc.aio.AioRpcError:
            return True  # its heartbeats say whether it is there
        if found.agent_run_id != run_id:
            return False
        await self._events.described(self, found)
        return True

    async def _receive(self, call: Any, run_id: str) -> agent_pb2.WatchEvent | None:
        """Takes one message; None when the stream is over, is another life's, or this copy may no longer act on the
        node."""
        async with asyncio.timeout(self._lease_s):
            event = await call.read()
        if not isinstance(event, agent_pb2.WatchEvent):
            return None  # the stream's end
        self.last_beat = self._clock.monotonic()
        if self._events.token_for(self.node_id or "") is None:
            return None
        if event.replica_msgpack and not self._take(event.replica_msgpack, run_id):
            return None
        if event.snapshot_done:
            self.run_id = run_id
            log.info("agent connected", node=self.node_id, address=self.address, replicas=len(self.reports))
            await self._events.synced(self)
        return event

    def _take(self, payload: bytes, run_id: str) -> bool:
        """False: the agent was started anew since it said who it is, so that what it adopted would be taken for lost.
        Reports of what ended in a former life are still that life's."""
        try:
            report = msgspec.msgpack.decode(payload, type=ReplicaReport)
        except msgspec.MsgspecError as error:  # from an agent of another version: its replica stays as it is
            log.error("report not understood", node=self.node_id, error=str(error))
            return True
        if report.agent_run_id != run_id and report.phase not in ("stopped", "failed"):
            return False
        self.reports[report.replica] = report
        self._events.reported(report.replica)
        return True

    def _down(self) -> None:
        was_up = self.run_id is not None
        self.run_id = None
        self.reports.clear()
        self.sent.clear()
        if was_up:
            log.warning("agent not connected", node=self.node_id, address=self.address)
            self._events.down(self)

    def _complain(self, error: BaseException) -> None:
        """Once per silence, not once per try."""
        if self._complained:
            return
        self._complained = True
        said = error.details() if isinstance(error, grpc.aio.AioRpcError) else repr(error)
        log.warning("agent does not answer", address=self.address, error=said)


class Links:
    """All agents."""

    def __init__(self) -> None:
        self._links: list[AgentLink] = []

    def add(self, link: AgentLink) -> None:
        """One more agent."""
        self._links.append(link)

    def all(self) -> list[AgentLink]:
        """Every link."""
        return list(self._links)

    def of_node(self, node_id: str | None) -> AgentLink | None:
        """The link to a node's agent, connected or not; None before it has said who it is."""
        return next((link for link in self._links if node_id and link.node_id == node_id), None)

    def knowing(self, replica_id: str) -> AgentLink | None:
        """A link whose agent reports this replica."""
        return next((link for link in self._links if replica_id in link.reports), None)
