"""A monitor on real stores, with an access key and the means to publish facts as other processes would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import nats
from nats.aio.client import Client

from easel_contracts import facts
from easel_contracts.facts import Cause, Entity, EntityState, Fact, KeyState, NodeState, ReplicaState, ServiceState
from easel_contracts.ids import uuid7
from easel_contracts.spec import Resources, RevisionSpec
from easel_kit.keyring import sha256_hex
from easel_kit.run import Process
from easel_kit.settings import load
from easel_kit.testing import fresh_database, fresh_streams, process_environment
from easel_monitor.app import build
from easel_monitor.settings import MonitorSettings
from easel_monitor.subscriptions import LISTENS
from easel_proto.v1 import events_pb2_grpc, metrics_pb2_grpc
from easel_router.testing import PROCESS_TOKEN

ACCESS_KEY = "ek_k1_" + "s" * 43
METADATA = (("authorization", f"Bearer {ACCESS_KEY}"),)


class Rig:
    """The running monitor's surroundings."""

    def __init__(self, environment: dict[str, str], client: Client, channel: grpc.aio.Channel) -> None:
        self.environment, self.client = environment, client
        self.events: Any = events_pb2_grpc.EventsStub(channel)
        self.metrics: Any = metrics_pb2_grpc.MetricsStub(channel)
        self.versions = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.process: Process[MonitorSettings]

    async def tell(self, entity: Entity, verb: str, key: str, state: EntityState) -> int:
        """Publishes a fact as its owner's relay would; its sequence."""
        self.versions += 1
        fact = Fact(
            id=uuid7(), entity=entity, verb=verb, workspace="default", key=key, epoch=1, generation=1,
            row_version=self.versions, at=datetime.now(UTC), cause=Cause(actor="test", reason="Test", message="a test"),
            data=facts.raw(state),
        )  # fmt: skip
        stored = await self.client.jetstream().publish(
            fact.subject, facts.encode(fact), headers={"Nats-Msg-Id": fact.id}
        )
        return stored.seq

    async def node(self, key: str = "n1", address: str = "a") -> int:
        """A fact that the monitor itself has no use for."""
        state = NodeState(
            id=key, state="ready", address=address, network="host", cpu=2, memory_mib=100, isolation="", limits="",
            can_mount=False,
        )  # fmt: skip
        return await self.tell("node", "ready", key, state)

    async def service(self, name: str = "ocr", verb: str = "created") -> int:
        """A service comes to be, or goes."""
        return await self.tell("service", verb, name, service_state(name))

    async def replica(self, name: str, service: str = "ocr", state: str = "ready") -> int:
        """A replica of a service."""
        made = ReplicaState(id=name, service=service, revision=1, generation=1, state=state, row_version=self.versions)
        return await self.tell("replica", state, service, made)


def service_state(name: str) -> ServiceState:
    revision = RevisionSpec(number=1, command="x", port=8000, resources=Resources(cpu=1, memory_mib=10))
    return ServiceState(uid=uuid7(), name=name, generation=1, wanted="running", instance=1, revision=revision)


@asynccontextmanager
async def surroundings(path: Path, nats_url: str, dsn: str, **extra: str) -> AsyncIterator[Rig]:
    """Empty stores and clients; no monitor yet."""
    async with fresh_database(dsn, "easel_monitor") as dsns:
        await fresh_streams(nats_url, {"monitor": LISTENS})
        environment = {**process_environment(path, nats_url, dsns)["monitor"], **extra}
        peers = Path(environment["EASEL_PEERS_FILE"])
        known = {**json.loads(peers.read_text()), "envoy": sha256_hex(PROCESS_TOKEN)}
        peers.write_text(json.dumps(known))
        client = await nats.connect(nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        channel = grpc.aio.insecure_channel(
            environment["EASEL_MONITOR_ADDR"], options=[("grpc.default_authority", "localhost")]
        )
        rig = Rig(environment, client, channel)
        await rig.tell("key", "created", "k1", KeyState(id="k1", sha256=sha256_hex(ACCESS_KEY)))
        try:
            yield rig
        finally:
            for task in rig.tasks:
                task.cancel()
            await channel.close(None)
            await client.close()


@asynccontextmanager
async def monitor(rig: Rig) -> AsyncIterator[Process[MonitorSettings]]:
    """A monitor that serves and knows the access key; may be entered again: the next one starts from the stores."""
    settings = load(MonitorSettings, "monitor", env=rig.environment)
    process: Process[MonitorSettings] = Process("monitor", settings, LISTENS)
    rig.process = process
    await process.connect()
    await build(process)
    await process.start()
    task = asyncio.create_task(process.run_background())
    try:
        async with asyncio.timeout(20):
            while not process.keyring.usable():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        yield process
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
            await task
        await process.stop()
