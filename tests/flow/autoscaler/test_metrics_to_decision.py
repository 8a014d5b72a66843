"""The autoscaler over real NATS and PostgreSQL: service facts and metrics in, `scale.decided` and the API out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import nats
import pytest
from nats.aio.client import Client

from easel_autoscaler.app import build
from easel_autoscaler.decide.decision import Current, Decision
from easel_autoscaler.settings import Settings
from easel_autoscaler.store import KEEP_ROWS, Store
from easel_autoscaler.subscriptions import LISTENS
from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, KeyState, ScaleState, ServiceState
from easel_contracts.ids import metric_subject, uuid7
from easel_kit.clock import SystemClock
from easel_kit.db import Database, Stale
from easel_kit.keyring import sha256_hex
from easel_kit.run import Process
from easel_kit.settings import load
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment
from easel_proto.v1 import common_pb2, scaling_pb2, scaling_pb2_grpc
from tests.unit.autoscaler.made import policy, second, service

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

    async def measure(self, *, in_flight: int, ready: int, seconds: int = 6) -> None:
        """So many seconds of load, at once."""
        for _ in range(seconds):
            payload = msgspec.msgpack.encode(second(0.0, in_flight=in_flight, ready=ready))
            await self.bus.publish(metric_subject("default", "service", "ocr"), payload)
        await self.bus.flush()

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
async def started(environment: dict[str, str]) -> AsyncIterator[World]:
    """An autoscaler process on stores that are there already."""
    process = Process("autoscaler", load(Settings, "autoscaler", env=environment), LISTENS)
    bus = await nats.connect(environment["EASEL_NATS_URL"])
    async with running(process), grpc.aio.insecure_channel(process.settings.addr("autoscaler")) as channel:
        stub: Any = scaling_pb2_grpc.ScalingStub(channel)
        world = World(process, bus, stub)
        await bus.subscribe("easel.fact.*.scale.>", cb=_collector(world))
        await world.tell(KeyState(id="k1", sha256=sha256_hex(KEY)))
        await eventually(lambda: process.keyring.usable())
        yield world
    await bus.close()


@pytest.fixture
async def environment(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[dict[str, str]]:
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        await fresh_streams(nats_url, {"autoscaler": LISTENS})
        yield process_environment(short_path, nats_url, dsns)["autoscaler"]


@pytest.fixture
async def world(environment: dict[str, str]) -> AsyncIterator[World]:
    async with started(environment) as world:
        yield world


def _collector(world: World) -> Any:
    async def collect(message: Any) -> None:
        world.told.append(facts.state_of(facts.decode(message.data), ScaleState))

    return collect


async def test_load_out_and_in_again(world: World) -> None:
    """First decision at once; load brings replicas, its end takes them away; every step is in the journal."""
    await world.tell(service(policy(1, 3, down_s=2.0, concurrency=2.0)))
    await eventually(lambda: world.wanted() == 1)

    await world.measure(in_flight=7, ready=1)
    await eventually(lambda: world.wanted() == 3)
    assert (await world.explain())["ScaleOut"].endswith(
        "1 → 3, concurrency 7 per replica over 5 s on 1 replica is above 2: ceil(1 × 7 / 2) = 4, limited to max 3"
    )

    async def quiet() -> bool:
        await world.measure(in_flight=0, ready=3, seconds=3)
        return world.wanted() == 2

    await eventually(quiet)
    history = await world.stub.History(scaling_pb2.ScalingHistoryRequest(name="ocr"), metadata=bearer())
    assert [(d.number, d.before, d.wanted, d.reason) for d in history.decisions] == [
        (3, 3, 2, "ScaleIn"), (2, 1, 3, "ScaleOut"), (1, 1, 1, "Initial"),
    ]  # fmt: skip
    assert [(s.number, s.wanted) for s in world.told] == [(1, 1), (2, 3), (3, 2)]
    status = await world.stub.Get(scaling_pb2.GetScalingRequest(name="ocr"), metadata=bearer())
    assert (status.enabled, status.min, status.max, status.wanted, status.last.number) == (True, 1, 3, 2, 3)


async def test_without_metrics_it_holds_and_says_so(world: World) -> None:
    """A started service whose metrics never come keeps its count; nothing is shown as zero."""
    await world.tell(service(policy(1, 3, down_s=0.0, concurrency=2.0), instance=3))
    await eventually(lambda: world.wanted() == 3)
    await world.measure(in_flight=9, ready=3)

    async def load_known() -> bool:
        return "Load" in await world.explain()

    await eventually(load_known)

    async def held() -> bool:
        return {"LoadUnknown", "NoMetrics"} <= set(await world.explain())

    await eventually(held)
    status = await world.stub.Get(scaling_pb2.GetScalingRequest(name="ocr"), metadata=bearer())
    assert status.wanted == 3
    assert not status.targets[0].has_current


async def test_a_fixed_count_and_the_end_of_a_service(world: World) -> None:
    """metadata.instance where there is no autoscaler; told again for a new generation; gone when deleted."""
    await world.tell(service(instance=2))
    await eventually(lambda: world.wanted() == 2)
    await world.tell(service(instance=4, generation=2, instance_generation=2), 2, "scaled")
    await eventually(lambda: world.wanted() == 4)
    await world.tell(service(instance=4, generation=3, instance_generation=2), 3, "updated")
    await eventually(lambda: world.told[-1].generation == 3)
    assert [(s.generation, s.number, s.wanted, s.reason) for s in world.told] == [
        (1, 1, 2, "Fixed"), (2, 2, 4, "Fixed"), (3, 3, 4, "Fixed"),
    ]  # fmt: skip

    await world.tell(service(instance=4, generation=4, wanted="deleted"), 4, "deleted")

    async def gone() -> bool:
        try:
            await world.explain()
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.NOT_FOUND
        return False

    await eventually(gone)
    assert len(world.told) == 3


async def test_facts_told_again_repeat_nothing(world: World) -> None:
    """A fact delivered twice, or one that changes nothing that matters here, makes no second decision."""
    state = service(policy(1, 3, concurrency=2.0))
    await world.tell(state)
    await eventually(lambda: world.wanted() == 1)
    before = world.process.bus.delivered
    await world.tell(state)
    await world.tell(service(policy(1, 3, concurrency=2.0), status="Running"), 2, "status_changed")
    await eventually(lambda: world.process.bus.delivered >= before + 2)
    await world.measure(in_flight=7, ready=1)
    await eventually(lambda: world.wanted() == 3)

    assert [s.number for s in world.told] == [1, 2]


async def test_a_restart_decides_nothing_anew_and_takes_nothing_away(environment: dict[str, str]) -> None:
    """The new process goes on with the stored decision; a window that it has not watched is not over."""
    async with started(environment) as world:
        await world.tell(service(policy(1, 3, concurrency=2.0)))
        await eventually(lambda: world.wanted() == 1)
        await world.measure(in_flight=7, ready=1)
        await eventually(lambda: world.wanted() == 3)

    async with started(environment) as world:

        async def waits() -> bool:
            await world.measure(in_flight=0, ready=3)
            lines = await world.explain()
            return "of the 300 s it must last" in lines.get("ScaleInWaits", "") and "1 → 3" in lines["ScaleOut"]

        await eventually(waits)
        assert world.told == []


async def test_bad_page_size_is_named(world: World) -> None:
    """Wrong input says what is allowed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.stub.History(scaling_pb2.ScalingHistoryRequest(name="ocr", page_size=-1), metadata=bearer())

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "page_size" in (caught.value.details() or "")


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        database = Database(dsns["autoscaler"], "autoscaler")
        await database.open()
        yield Store(database, SystemClock(), "default")
        await database.close()


def step(wanted: int) -> Decision:
    return Decision(before=1, wanted=wanted, reason="Test", message="")


async def test_only_one_writer_is_heard(store: Store) -> None:
    """A second writer on the same row, and one with an older lease, are stale and change nothing."""
    first = await store.write(service(), None, step(2), lease_token=5)
    with pytest.raises(Stale):
        await store.write(service(), None, step(9), lease_token=5)
    second_ = await store.write(service(), first, step(3), lease_token=6)
    with pytest.raises(Stale):
        await store.write(service(), first, step(9), lease_token=6)
    with pytest.raises(Stale):
        await store.write(service(), second_, step(9), lease_token=5)

    assert await store.current("ocr") == second_
    assert [d.wanted for d in await store.history("ocr", "u1", 10)] == [3, 2]
    assert [facts.state_of(fact, ScaleState).wanted for fact in await store.facts()] == [3]


async def test_the_journal_keeps_its_cap(store: Store) -> None:
    """Not more than KEEP_ROWS decisions per service."""
    current: Current | None = None
    for number in range(KEEP_ROWS + 3):
        current = await store.write(service(), current, step(number), lease_token=1)
    await store.prune()

    assert len(await store.history("ocr", "u1", 10 * KEEP_ROWS)) == KEEP_ROWS
