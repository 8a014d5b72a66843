"""An autoscaler process over real stores, and everything around it, played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import msgspec
import nats
from nats.aio.client import Client

from easel_autoscaler.app import build
from easel_autoscaler.settings import Settings
from easel_autoscaler.subscriptions import LISTENS
from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, KeyState, ScaleState, ServiceState
from easel_contracts.ids import metric_subject, uuid7
from easel_kit.clock import Clock, SystemClock
from easel_kit.keyring import sha256_hex
from easel_kit.run import Process
from easel_kit.settings import load
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, scaling_pb2_grpc
from tests.unit.autoscaler.made import hold, second

KEY = "ek_k1_a-key-of-this-test"


class World:
    """One autoscaler process and everything around it, played by the test."""

    def __init__(self, process: Process[Settings], bus: Client, stub: scaling_pb2_grpc.ScalingAsyncStub) -> None:
        self.process, self.bus, self.stub = process, bus, stub
        self.told: list[ScaleState] = []

    async def tell(self, state: ServiceState | KeyState, row_version: int = 1, verb: str = "created") -> None:
        """A fact of control."""
        is_service = isinstance(state, ServiceState)
        fact = Fact(
            id=uuid7(), entity="service" if is_service else "key", verb=verb, workspace="default",
            key=state.name if isinstance(state, ServiceState) else state.id, epoch=1,
            generation=state.generation if isinstance(state, ServiceState) else 1, row_version=row_version,
            at=SystemClock().now(), cause=Cause(actor="test", reason="Test"), data=facts.raw(state),
        )  # fmt: skip
        await self.bus.jetstream().publish(fact.subject, facts.encode(fact))

    async def measure(self, *, in_flight: int, ready: int, seconds: int = 6, interval_s: float = 1.0) -> None:
        """So many seconds of load, at once."""
        for _ in range(seconds):
            seen = second(0.0, in_flight=in_flight, ready=ready, interval_s=interval_s)
            payload = msgspec.msgpack.encode(seen)
            await self.bus.publish(metric_subject("default", "service", "ocr"), payload)
        await self.bus.flush()

    async def hold(self, held: int, oldest_s: float = 0.02) -> None:
        """What the router says of requests that wait."""
        payload = msgspec.msgpack.encode(hold(held, oldest_s))
        await self.bus.publish(metric_subject("default", "hold", "ocr"), payload)
        await self.bus.flush()

    def knows(self, name: str = "ocr") -> bool:
        """Whether the process has loaded the service: what is heard before that is not looked at."""
        tasks = self.process._background
        scaler = next(task.__self__ for task in tasks if getattr(task, "__name__", "") == "watch_load")  # type: ignore[attr-defined]
        return scaler.fleet.get(name) is not None

    def wanted(self) -> int | None:
        """By the newest fact."""
        return self.told[-1].wanted if self.told else None

    async def explain(self) -> dict[str, str]:
        """code → message."""
        answer = await self.stub.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=bearer())
        return {line.code: line.message for line in answer.lines}


def bearer() -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {KEY}"),)


@asynccontextmanager
async def running(process: Process[Settings]) -> AsyncIterator[None]:
    await process.connect()
    await build(process)
    await process.start()
    task = asyncio.create_task(process.run_background())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await process.stop()


@asynccontextmanager
async def started(environment: dict[str, str], clock: Clock | None = None) -> AsyncIterator[World]:
    """An autoscaler process on stores that are there already."""
    process = Process("autoscaler", load(Settings, "autoscaler", env=environment), LISTENS, clock)
    bus = await nats.connect(environment["EASEL_NATS_URL"])
    async with running(process), grpc.aio.insecure_channel(process.settings.addr("autoscaler")) as channel:
        stub: Any = scaling_pb2_grpc.ScalingStub(channel)
        world = World(process, bus, stub)
        await bus.subscribe("easel.fact.*.scale.>", cb=_collector(world))
        await world.tell(KeyState(id="k1", sha256=sha256_hex(KEY)))
        await eventually(lambda: process.keyring.usable())
        yield world
        await eventually(lambda: _all_told(process))  # or the next process would tell it again
    await bus.close()


def _collector(world: World) -> Any:
    async def collect(message: Any) -> None:
        world.told.append(facts.state_of(facts.decode(message.data), ScaleState))

    return collect


async def _all_told(process: Process[Settings]) -> bool:
    async with process.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) = 0 FROM outbox"))
