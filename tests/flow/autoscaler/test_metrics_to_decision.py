"""The autoscaler over real NATS and PostgreSQL: service facts and metrics in, `scale.decided` and the API out."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest

from easel_autoscaler.decide.decision import Current, Decision
from easel_autoscaler.store import KEEP_ROWS, Store
from easel_contracts import facts
from easel_contracts.facts import ScaleState
from easel_kit.clock import SystemClock
from easel_kit.db import Database, Stale
from easel_kit.testing import eventually, fresh_database
from easel_proto.v1 import scaling_pb2
from tests.flow.autoscaler.world import World, bearer, started
from tests.unit.autoscaler.made import policy, service


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
