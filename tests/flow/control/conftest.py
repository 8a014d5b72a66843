"""Control as it runs, on real PostgreSQL and NATS, with a client that holds an access key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import nats
import pytest

from easel_contracts import facts
from easel_contracts.facts import EntityState, Fact, ReplicaState, RouteState, ScaleState
from easel_contracts.ids import fact_subject, uuid7
from easel_control.app import build
from easel_control.keys import ensure_access_key
from easel_control.settings import Settings
from easel_control.subscriptions import LISTENS
from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.grpc import channel
from easel_kit.run import Process
from easel_kit.settings import load
from easel_kit.streams import FACTS
from easel_kit.testing import fresh_database, fresh_streams, process_environment
from easel_proto.internal.v1 import control_pb2_grpc
from easel_proto.v1 import (
    audit_pb2_grpc,
    canaries_pb2_grpc,
    groups_pb2_grpc,
    mirrors_pb2_grpc,
    services_pb2_grpc,
    tokens_pb2_grpc,
)

ENTITIES: dict[type[EntityState], facts.Entity] = {
    ReplicaState: "replica", RouteState: "route", ScaleState: "scale",
}  # fmt: skip


class Control:
    """A running control and its surroundings."""

    def __init__(self, directory: Path, nats_url: str, environment: dict[str, dict[str, str]]) -> None:
        self.directory, self.nats_url, self.environment = directory, nats_url, environment
        self.settings: Settings = load(
            Settings, "control", env={**environment["control"], "EASEL_HOST_ID": "here", "EASEL_MODE": "standalone"}
        )
        self.process: Process[Settings] = Process("control", self.settings, LISTENS)
        self.key = ""
        self._channels: list[grpc.aio.Channel] = []
        self.versions = 0
        """Of the facts that were published: those of a later process go on from there."""

    async def start(self) -> None:
        """Makes the first key and runs the process."""
        database = Database(self.settings.db_dsn, "control")
        await database.open()
        await ensure_access_key(database, self.directory / "access-key")
        await database.close()
        self.key = (self.directory / "access-key").read_text().strip()
        await self.process.connect()
        await build(self.process)
        await self.process.start()
        self._task = asyncio.create_task(self.process.run_background())

    async def stop(self) -> None:
        """As SIGTERM would."""
        for opened in self._channels:
            await opened.close(None)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.process.stop()

    def as_process(self, name: str) -> Any:
        """The internal API as another process calls it."""
        token = (self.directory / f"{name}.token").read_text()
        return control_pb2_grpc.SecretsStub(self._open(token))

    def services(self) -> Any:
        """The public API; pass `metadata=control.auth`."""
        return services_pb2_grpc.ServicesStub(self._open(None))

    def groups(self) -> Any:
        """The API of groups."""
        return groups_pb2_grpc.GroupsStub(self._open(None))

    def tokens(self) -> Any:
        """The API of tokens."""
        return tokens_pb2_grpc.TokensStub(self._open(None))

    def mirrors(self) -> Any:
        """The API of mirrors."""
        return mirrors_pb2_grpc.MirrorsStub(self._open(None))

    def audit(self) -> Any:
        """The audit API."""
        return audit_pb2_grpc.AuditStub(self._open(None))

    def canaries(self) -> Any:
        """The API of canaries."""
        return canaries_pb2_grpc.CanariesStub(self._open(None))

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    def _open(self, token: str | None) -> grpc.aio.Channel:
        opened = channel(self.settings.control_addr, token)
        self._channels.append(opened)
        return opened

    async def told(self) -> list[Fact]:
        """Every fact in the stream so far."""
        client = await nats.connect(self.nats_url)
        js = client.jetstream()
        last = (await js.stream_info(FACTS)).state.last_seq
        found = [facts.decode((await js.get_msg(FACTS, seq)).data or b"") for seq in range(1, last + 1)]
        await client.close()
        return found

    async def hear(self, verb: str, state: EntityState, service: str = "ocr") -> None:
        """Publishes a fact as its owner would."""
        self.versions += 1
        kinds: dict[type[EntityState], facts.Entity] = {
            ReplicaState: "replica",
            RouteState: "route",
            ScaleState: "scale",
        }
        entity = kinds[type(state)]
        version = self.versions
        if isinstance(state, ReplicaState):
            state = msgspec.structs.replace(state, row_version=version)
        fact = Fact(
            id=uuid7(), entity=entity, verb=verb, workspace="default", key=service, epoch=1, generation=1,
            row_version=version, at=SystemClock().now(), cause=facts.Cause(actor="test", reason="Test"),
            data=facts.raw(state),
        )  # fmt: skip
        client = await nats.connect(self.nats_url)
        await client.jetstream().publish(fact_subject("default", entity, service, verb), facts.encode(fact))
        await client.close()


def replica(identity: str, state: str, **more: Any) -> ReplicaState:
    """A replica as the scheduler tells it."""
    return ReplicaState(**{"id": identity, "service": "ocr", "revision": 1, "generation": 1, "state": state, **more})


def route(
    *replicas: str, state: Any = "probed", holding: bool = False, split_permille: int | None = None
) -> RouteState:
    """A route as the router tells it."""
    return RouteState(service="ocr", generation=1, state=state, version="v", replicas=replicas, apply_ms=12.0,
                      holding=holding, split_permille=split_permille)  # fmt: skip


@pytest.fixture
async def control(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Control]:
    """Control, running."""
    async with fresh_database(postgres_dsn, "easel_control") as dsns:
        await fresh_streams(nats_url, {"control": LISTENS})
        made = Control(short_path, nats_url, process_environment(short_path, nats_url, dsns))
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
