"""A copy that starts where its dead predecessor was has its shards at once; a living copy's are left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.leases import SHARDS, Leases
from easel_kit.run import Process
from easel_kit.testing import eventually, fresh_database, fresh_streams, plain_settings, process_environment

COPY = """
from easel_kit.run import run
from easel_kit.settings import ProcessSettings

async def build(process):
    pass

run("autoscaler", ProcessSettings, build)
"""


@pytest.fixture
async def database(postgres_dsn: str):  # type: ignore[no-untyped-def]
    """A schema with the kit's tables."""
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        found = Database(dsns["autoscaler"], "autoscaler")
        await found.open()
        yield found
        await found.close()


async def _tokens(database: Database) -> dict[int, tuple[str, int]]:
    async with database.connection() as connection:
        return {r["shard"]: (r["holder"], r["token"]) for r in await connection.fetch("SELECT * FROM leases")}


async def test_a_predecessors_shards_pass_on_with_higher_tokens(database: Database) -> None:
    """The dead copy, if it were not quite dead, would be refused everywhere: every token has risen."""
    clock = SystemClock()
    dead, successor = Leases(database, "here/1", clock), Leases(database, "here/2", clock)
    await dead.renew()
    before = await _tokens(database)

    assert await successor.succeed("here") == SHARDS
    await successor.renew()

    assert successor.held() == SHARDS
    assert all(token > before[shard][1] for shard, (_, token) in (await _tokens(database)).items())
    await dead.renew()
    assert dead.held() == 0


async def test_a_living_copys_shards_are_untouched(database: Database) -> None:
    """Of two copies one dies: its successor takes over its half, the other keeps holders and tokens."""
    clock = SystemClock()
    dead, living = Leases(database, "here/1", clock), Leases(database, "there/1", clock)
    for _ in range(3):
        await dead.renew()
        await living.renew()
    before = {shard: row for shard, row in (await _tokens(database)).items() if row[0] == "there/1"}
    assert len(before) == SHARDS / 2

    successor = Leases(database, "here/2", clock)
    assert await successor.succeed("here") == SHARDS / 2
    await successor.renew()
    await living.renew()

    after = await _tokens(database)
    assert {shard: after[shard] for shard in before} == before
    assert successor.held() == living.held() == SHARDS / 2


async def test_a_name_that_begins_alike_is_another_place(database: Database) -> None:
    """`/data/1` and `/data/10` are two."""
    clock = SystemClock()
    other = Leases(database, "host:/data/10/x", clock)
    await other.renew()

    assert await Leases(database, "host:/data/1/y", clock).succeed("host:/data/1") == 0


async def test_after_kill_9_the_next_copy_acts_at_once(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Over real processes: the successor does not wait for the ten seconds of its predecessor's leases."""
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        await fresh_streams(nats_url, {"autoscaler": ()})
        environment = {**os.environ, **process_environment(short_path, nats_url, dsns)["autoscaler"]}
        database = Database(dsns["autoscaler"], "autoscaler")
        await database.open()
        killed = await asyncio.create_subprocess_exec(sys.executable, "-c", COPY, env=environment)

        async def all_held() -> bool:
            return {holder is not None for holder, _ in (await _tokens(database)).values()} == {True}

        await eventually(all_held)
        before = await _tokens(database)
        second = Process("autoscaler", plain_settings(short_path, nats_url, "autoscaler", dsns), ())
        try:
            await second.connect()
            await second.start()
            assert second.leases.held() == 0, "the first still lives, in the same place: nothing is taken from it"
            killed.send_signal(signal.SIGKILL)
            await killed.wait()

            third = Process("autoscaler", plain_settings(short_path, nats_url, "autoscaler", dsns), ())
            await third.connect()
            await third.start()

            assert third.leases.held() >= SHARDS / 2
            held = {s: row for s, row in (await _tokens(database)).items() if row[0] != before[s][0]}
            assert all(token > before[shard][1] for shard, (_, token) in held.items())
            await third.stop()
        finally:
            if killed.returncode is None:
                killed.kill()
                await killed.wait()
            await second.stop()
            await database.close()
