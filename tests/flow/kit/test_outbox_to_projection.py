"""A fact's way: transaction → outbox → relay → stream → durable consumer → projection, over real stores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, KeyState, NodeState, ScaleState
from easel_contracts.ids import uuid7
from easel_kit.bus import ConsumerDrift
from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.leases import SHARDS, Leases
from easel_kit.outbox import tell
from easel_kit.projection import Projection
from easel_kit.run import Process
from easel_kit.streams import DEAD, FACTS
from easel_kit.testing import eventually, fresh_database, fresh_streams, plain_settings

LISTENS: tuple[facts.Entity, ...] = ("scale",)


@asynccontextmanager
async def processes(path: Path, nats_url: str, dsn: str) -> AsyncIterator[tuple[Process, Process]]:  # type: ignore[type-arg]
    """An autoscaler that tells and a scheduler that listens; only the kit's own tables."""
    async with fresh_database(dsn, "easel_autoscaler", "easel_scheduler") as dsns:
        await fresh_streams(nats_url, {"autoscaler": (), "scheduler": LISTENS})
        teller = Process("autoscaler", plain_settings(path, nats_url, "autoscaler", dsns), ())
        reader = Process("scheduler", plain_settings(path, nats_url, "scheduler", dsns), LISTENS)
        yield teller, reader


def decision(number: int) -> ScaleState:
    return ScaleState(service="ocr", generation=1, number=number, before=1, wanted=number, reason="Test", message="")


async def tell_decision(process: Process, number: int) -> Fact:  # type: ignore[type-arg]
    async with process.db.transaction() as connection:
        return await tell(
            connection, process.db, entity="scale", verb="decided", key="ocr", generation=1, row_version=number,
            state=decision(number), cause=Cause(actor="test", reason="Test"),
        )  # fmt: skip


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[None]:  # type: ignore[type-arg]
    await process.start()
    task = asyncio.create_task(process.run_background())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await process.stop()


async def test_facts_reach_the_reader_once_in_effect_and_in_order(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Every fact told is handled, in order, and the outbox is empty afterwards."""
    async with processes(short_path, nats_url, postgres_dsn) as (teller, reader):
        await teller.connect()
        await reader.connect()
        seen: list[int] = []
        projection = Projection(reader.db, "scale", ScaleState)

        async def on_scale(fact: Fact) -> None:
            if await projection.apply(fact):
                seen.append(facts.state_of(fact, ScaleState).number)

        reader.subscribe({"scale": on_scale})
        async with running(teller), running(reader):
            for number in range(1, 21):
                await tell_decision(teller, number)
            await eventually(lambda: len(seen) == 20)

            assert seen == list(range(1, 21))
            assert (await projection.by_key("ocr"))[0].wanted == 20
            async with teller.db.connection() as connection:

                async def empty() -> bool:
                    return bool(await connection.fetchval("SELECT count(*) = 0 FROM outbox"))

                await eventually(empty)


async def test_an_older_fact_changes_nothing(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Late and repeated facts are dropped; a higher epoch wins over any row_version."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        database = Database(dsns["scheduler"], "scheduler")
        await database.open()
        projection = Projection(database, "scale", ScaleState)

        assert await projection.apply(_fact(number=5))
        assert not await projection.apply(_fact(number=5))
        assert not await projection.apply(_fact(number=4))
        assert await projection.apply(_fact(number=1, epoch=2))
        assert (await projection.get("ocr")) == decision(1)
        await database.close()


def _fact(number: int, epoch: int = 1) -> Fact:
    return Fact(
        id=uuid7(), entity="scale", verb="decided", workspace="default", key="ocr", epoch=epoch, generation=1,
        row_version=number, at=SystemClock().now(), cause=Cause(actor="t", reason="t"),
        data=facts.raw(decision(number)),
    )  # fmt: skip


async def test_a_handler_that_fails_is_tried_again(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A fact is delivered again until its handler succeeds; nothing becomes a dead letter."""
    async with processes(short_path, nats_url, postgres_dsn) as (teller, reader):
        await teller.connect()
        await reader.connect()
        tries: list[int] = []

        async def on_scale(fact: Fact) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise RuntimeError("not yet")

        reader.subscribe({"scale": on_scale})
        async with running(teller), running(reader):
            await tell_decision(teller, 1)
            await eventually(lambda: reader.bus.delivered == 1)

            assert len(tries) == 3
            assert reader.bus.dead == 0


async def test_what_cannot_be_read_becomes_a_dead_letter(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A body that is no fact is kept in the dead-letter stream with its error; later facts go on."""
    async with processes(short_path, nats_url, postgres_dsn) as (teller, reader):
        await teller.connect()
        await reader.connect()
        seen: list[Fact] = []

        async def on_scale(fact: Fact) -> None:
            seen.append(fact)

        reader.subscribe({"scale": on_scale})
        async with running(teller), running(reader):
            client = await nats.connect(nats_url)
            await client.jetstream().publish("easel.fact.default.scale.ocr.decided", b"\xff\x00 no fact", stream=FACTS)
            await tell_decision(teller, 1)
            await eventually(lambda: len(seen) == 1)

            dead = await client.jetstream().get_last_msg(DEAD, "easel.dead.scheduler")
            assert dead.data == b"\xff\x00 no fact"
            assert dead.headers is not None
            assert "cannot be read" in dead.headers["Easel-Error"]
            await client.close()


async def test_a_process_refuses_to_start_without_its_consumer(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Processes declare nothing: a missing durable consumer is an error that names migrate."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        await fresh_streams(nats_url, {})
        process = Process("scheduler", plain_settings(short_path, nats_url, "scheduler", dsns), LISTENS)

        with pytest.raises(ConsumerDrift, match="run migrate"):
            await process.connect()
        await process.db.close()
        await process.bus.stop()


async def test_leases_are_shared_and_fenced(postgres_dsn: str) -> None:
    """Two copies share the shards; no shard has two holders; a change of hands raises the token."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        database = Database(dsns["scheduler"], "scheduler")
        await database.open()
        clock = SystemClock()
        first, second = Leases(database, "a", clock), Leases(database, "b", clock)
        await first.renew()
        assert first.held() == SHARDS
        before = {key: first.token_for(key) for key in map(str, range(100))}
        for _ in range(2):
            await second.renew()
            await first.renew()
        await second.renew()

        assert first.held() + second.held() == SHARDS
        assert first.held() == second.held()
        for key in before:
            holders = [lease for lease in (first, second) if lease.token_for(key) is not None]
            assert len(holders) == 1
            if holders[0] is second:
                assert (second.token_for(key) or 0) > (before[key] or 0)
        await database.close()


def test_keys_and_nodes_have_states() -> None:
    """Every entity has a struct for its data."""
    assert facts.STATE_OF["key"] is KeyState
    assert facts.STATE_OF["node"] is NodeState
