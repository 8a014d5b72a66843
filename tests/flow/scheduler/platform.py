"""A real scheduler process on real stores; the tests speak for control, the autoscaler, the router and the agents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import nats
from nats.aio.msg import Msg

from easel_contracts import facts
from easel_contracts.facts import Cause, Entity, EntityState, Fact, KeyState, ReplicaState, RouteState, TrafficState
from easel_contracts.ids import uuid7
from easel_kit.grpc import channel
from easel_kit.keyring import sha256_hex
from easel_kit.run import Process
from easel_kit.settings import load
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment
from easel_proto.internal.v1 import router_pb2, router_pb2_grpc
from easel_proto.v1 import nodes_pb2_grpc, replicas_pb2, replicas_pb2_grpc
from easel_scheduler.app import build
from easel_scheduler.decide.world import Replica
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store
from easel_scheduler.subscriptions import LISTENS

KEY = "ek_test_" + "0" * 32


class Platform:
    """What a test needs around one scheduler."""

    def __init__(self, path: Path, nats_url: str, dsns: dict[str, str], agents: list[str], **settings: Any) -> None:
        self._path, self._nats_url, self._dsns = path, nats_url, dsns
        self._more = {
            "EASEL_AGENT_ADDR": ",".join(agents),
            **{f"EASEL_{k.upper()}": str(v) for k, v in settings.items()},
        }
        self._env = process_environment(path, nats_url, dsns)
        self._versions = 0
        self.told: list[Fact] = []
        """Every fact on the bus, in order."""
        self._stack = contextlib.AsyncExitStack()
        self.process: Process[SchedulerSettings] | None = None

    @property
    def store(self) -> Store:
        assert self.process is not None
        return Store(self.process.db, "default")

    async def listen(self) -> None:
        self._bus = await nats.connect(self._nats_url)
        await self._bus.subscribe("easel.fact.>", cb=self._on_fact)
        await self.tell("key", "created", "test", KeyState(id="test", sha256=sha256_hex(KEY)))

    def environment(self) -> dict[str, str]:
        """What a copy of the scheduler is started with."""
        return self.environment_of("scheduler")

    def environment_of(self, process: str) -> dict[str, str]:
        """What another process of the platform is started with."""
        return {**self._env[process], **self._more}

    async def start(self) -> None:
        """Starts a scheduler."""
        env = self.environment()
        process = Process("scheduler", load(SchedulerSettings, "scheduler", env=env), LISTENS)
        self.process = process
        await process.connect()
        await build(process)
        await process.start()
        self._running = asyncio.create_task(process.run_background())

    async def kill(self) -> None:
        """Ends the scheduler's work; its leases are given back so that the next need not wait for their end."""
        assert self.process is not None
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        await self.process.stop()
        self.process = None

    async def close(self) -> None:
        if self.process is not None:
            await self.kill()
        await self._bus.close()

    async def tell(self, entity: Entity, verb: str, key: str, state: EntityState, generation: int = 1) -> None:
        """Puts somebody else's fact on the bus."""
        self._versions += 1
        fact = Fact(id=uuid7(), entity=entity, verb=verb, workspace="default", key=key, epoch=1, generation=generation,
                    row_version=self._versions, at=datetime.now(UTC), cause=Cause(actor="test", reason="Test"),
                    data=facts.raw(state))  # fmt: skip
        await self._bus.jetstream().publish(fact.subject, facts.encode(fact))

    async def route(self, *replicas: str, draining: tuple[str, ...] = ()) -> None:
        """As the router: these take traffic now."""
        state = RouteState(service="ocr", generation=1, state="probed", version="v", replicas=replicas,
                           draining=draining)  # fmt: skip
        await self.tell("route", "applied", "ocr", state)

    async def drained(self, replica: str, drain_number: int | None = None) -> None:
        """As the router: nothing is in flight there since it was last taken out of traffic (or since that number)."""
        row = await self.store.replica(replica)
        assert row is not None
        number = row.drain_number if drain_number is None else drain_number
        await self.tell("traffic", "drained", row.service, TrafficState(service=row.service, replica=replica,
                                                                        drain_number=number))  # fmt: skip

    async def replicas(self, *states: str) -> list[Replica]:
        """Rows of the service in these states (all, when none is named), oldest first."""
        found = [r for r in await self.store.of_service("ocr") if not states or r.state in states]
        return sorted(found, key=lambda r: (r.created_at, r.id))

    async def until(self, count: int, *states: str, deadline_s: float = 20.0) -> list[Replica]:
        """Waits until exactly so many rows are in these states."""

        async def check() -> list[Replica] | bool:
            found = await self.replicas(*states)
            assert len(found) == count, [(r.id, r.state, r.cause, r.message) for r in await self.replicas()]
            return found or True

        found = await eventually(check, deadline_s)
        return found if isinstance(found, list) else []

    def verbs(self, replica: str) -> list[str]:
        """What was told about one replica."""
        return [f.verb for f in self.told if f.entity == "replica" and self.state(f).id == replica]

    @staticmethod
    def state(fact: Fact) -> ReplicaState:
        return facts.state_of(fact, ReplicaState)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[tuple[replicas_pb2_grpc.ReplicasAsyncStub, nodes_pb2_grpc.NodesAsyncStub]]:
        """The public API, with an access key."""
        assert self.process is not None
        opened = channel(self.process.settings.scheduler_addr)
        yield replicas_pb2_grpc.ReplicasStub(opened), nodes_pb2_grpc.NodesStub(opened)
        await opened.close(None)

    def internal(self, process: str) -> grpc.aio.Channel:
        """The scheduler's internal APIs, as another process calls them."""
        assert self.process is not None
        token = Path(self.environment_of(process)["EASEL_PROCESS_TOKEN_FILE"]).read_text()
        return channel(self.process.settings.scheduler_addr, token)

    @asynccontextmanager
    async def router(self, in_flight: dict[str, int]) -> AsyncIterator[list[str]]:
        """A router that counts these requests; yields the services it was asked about."""
        assert self.process is not None
        served, asked = grpc.aio.server(), list[str]()
        router_pb2_grpc.add_TrafficServicer_to_server(_Traffic(in_flight, asked), served)
        served.add_insecure_port(self.process.settings.router_addr)
        await served.start()
        known = self.process.channel("router")
        await eventually(lambda: known.get_state(try_to_connect=True) == grpc.ChannelConnectivity.READY)
        try:
            yield asked
        finally:
            await served.stop(0)

    async def _on_fact(self, message: Msg) -> None:
        self.told.append(facts.decode(message.data))


class _Traffic(router_pb2_grpc.TrafficServicer):
    def __init__(self, in_flight: dict[str, int], asked: list[str]) -> None:
        self._in_flight, self._asked = in_flight, asked

    async def InFlight(self, request: router_pb2.InFlightRequest, context: object) -> router_pb2.InFlightResponse:
        self._asked.append(request.service)
        return router_pb2.InFlightResponse(in_flight=self._in_flight)


AUTH = (("authorization", f"Bearer {KEY}"),)


@asynccontextmanager
async def platform(path: Path, nats_url: str, dsn: str, agents: list[str], *, wait_for_nodes: bool = True,
                   **settings: Any) -> AsyncIterator[Platform]:  # fmt: skip
    """A scheduler with these agents."""
    async with fresh_database(dsn, "easel_scheduler") as dsns:
        await fresh_streams(nats_url, {"scheduler": LISTENS})
        found = Platform(path, nats_url, dsns, agents, **{"heartbeat_s": 0.1, **settings})
        await found.listen()
        await found.start()
        try:
            if wait_for_nodes:
                await eventually(lambda: len([f for f in found.told if f.entity == "node"]) == len(agents))
            yield found
        finally:
            await found.close()


def logs_request(**given: Any) -> replicas_pb2.ReplicaLogsRequest:
    return replicas_pb2.ReplicaLogsRequest(service="ocr", **given)
