"""Facts of many keys at the same time: order within a key, failures, death in the middle, a graceful stop."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, ScaleState
from easel_contracts.ids import uuid7
from easel_kit import bus as buses
from easel_kit import streams
from easel_kit.bus import Bus
from easel_kit.clock import SystemClock
from easel_kit.streams import DEAD, FACTS
from easel_kit.testing import (
    DEADLINE_S,
    eventually,
    fresh_database,
    fresh_streams,
    plain_settings,
    process_environment,
)

KEYS = tuple(f"svc_{n}" for n in range(20))
SEED = 11

Handler = Callable[[Fact], Awaitable[None]]


def fact(key: str, number: int) -> Fact:
    state = ScaleState(service=key, generation=1, number=number, before=0, wanted=1, reason="Test", message="")
    return Fact(
        id=uuid7(), entity="scale", verb="decided", workspace="default", key=key, epoch=1, generation=1,
        row_version=number, at=SystemClock().now(), cause=Cause(actor="test", reason="Test"), data=facts.raw(state),
    )  # fmt: skip


async def publish(client: Client, keys: tuple[str, ...], each: int) -> None:
    """Facts 1 to `each` of every key, keys mixed, in order within a key."""
    chance = random.Random(SEED)
    left = dict.fromkeys(keys, 0)
    while left:
        key = chance.choice(list(left))
        left[key] += 1
        told = fact(key, left[key])
        await client.jetstream().publish(told.subject, facts.encode(told), stream=FACTS)
        if left[key] == each:
            del left[key]


@asynccontextmanager
async def connected(path: Path, nats_url: str) -> AsyncIterator[tuple[Callable[[], Bus], Client]]:
    """An empty bus with the scheduler's consumer; gives what makes its connections, and a plain client."""
    await fresh_streams(nats_url, {"scheduler": ("scale",)})
    client = await nats.connect(nats_url)
    settings = plain_settings(path, nats_url, "scheduler", {})
    try:
        yield lambda: Bus(settings, "scheduler"), client
    finally:
        await client.close()


async def listening(bus: Bus, handler: Handler) -> Bus:
    """The bus, at work."""
    await bus.connect()
    bus.on_facts({"scale": handler})
    await bus.start()
    return bus


def at_least(done: list[tuple[str, int]], goal: int) -> bool:
    return len(done) >= goal


async def nothing_left(client: Client) -> bool:
    """Whether every fact was delivered and settled."""
    info = await client.jetstream().consumer_info(FACTS, "scheduler")
    return (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_each_key_is_in_order_while_others_fail_and_wait(short_path: Path, nats_url: str) -> None:
    """Every fact once; those of a key one at a time and in order, but for the ones that had to be tried again."""
    chance = random.Random(SEED)
    async with connected(short_path, nats_url) as (made, client):
        failing = {(key, number) for key in KEYS for number in range(1, 31) if chance.random() < 0.05}
        tried: set[tuple[str, int]] = set()
        done: list[tuple[str, int]] = []
        busy: set[str] = set()
        wrong: list[str] = []
        most = 0

        async def on_scale(told: Fact) -> None:
            nonlocal most
            wrong.extend({told.key} & busy)
            busy.add(told.key)
            most = max(most, len(busy))
            await asyncio.sleep(chance.randint(0, 5) / 1000)
            busy.discard(told.key)
            one = (told.key, told.row_version)
            if one in failing - tried:
                tried.add(one)
                raise RuntimeError("not yet")
            done.append(one)

        await publish(client, KEYS, 30)
        bus = await listening(made(), on_scale)
        await eventually(lambda: len(done) == 600)
        await eventually(lambda: nothing_left(client))
        await bus.stop()

        assert sorted(done) == sorted((key, number) for key in KEYS for number in range(1, 31))
        assert (wrong, bus.dead, most) == ([], 0, buses.AT_ONCE)
        assert len(failing) > 10
        for key in KEYS:
            first_time = [number for of, number in done if of == key and (of, number) not in failing]
            assert first_time == sorted(first_time)


async def test_a_key_that_stands_still_holds_up_no_other(short_path: Path, nats_url: str) -> None:
    """While its first fact is being handled, its second waits and all others are done."""
    async with connected(short_path, nats_url) as (made, client):
        gate, done = asyncio.Event(), []

        async def on_scale(told: Fact) -> None:
            if (told.key, told.row_version) == (KEYS[0], 1):
                await gate.wait()
            done.append((told.key, told.row_version))

        await publish(client, KEYS, 2)
        bus = await listening(made(), on_scale)
        await eventually(lambda: len(done) == 2 * len(KEYS) - 2)
        assert all(key != KEYS[0] for key, _ in done)
        gate.set()
        await eventually(lambda: done[-2:] == [(KEYS[0], 1), (KEYS[0], 2)])
        await bus.stop()


async def test_what_can_never_be_handled_ends_as_a_dead_letter_and_its_key_goes_on(
    short_path: Path, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The facts after it are handled meanwhile; the dead letter says what, whose and why."""
    monkeypatch.setattr(buses, "MAX_DELIVER", 4)
    async with connected(short_path, nats_url) as (made, client):
        tries, done = [], []

        async def on_scale(told: Fact) -> None:
            if told.row_version == 2:
                tries.append(told.row_version)
                raise RuntimeError("never")
            done.append(told.row_version)

        await publish(client, ("ocr",), 5)
        bus = await listening(made(), on_scale)
        await eventually(lambda: bus.dead == 1)
        await eventually(lambda: nothing_left(client))

        dead = await client.jetstream().get_last_msg(DEAD, "easel.dead.scheduler")
        assert (done, len(tries)) == ([1, 3, 4, 5], 3)
        assert dead.headers is not None
        assert dead.headers["Easel-Error"] == "RuntimeError('never')"
        assert (dead.headers["Easel-Sequence"], facts.decode(dead.data or b"").row_version) == ("2", 2)
        await bus.stop()


async def test_facts_that_wait_long_in_the_process_are_not_delivered_again(
    short_path: Path, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server hears that they are still wanted. That its patience is over shows in another consumer like ours."""
    monkeypatch.setattr(streams, "ACK_WAIT_S", 0.5)
    monkeypatch.setattr(buses, "PROLONG_S", 0.1)
    async with connected(short_path, nats_url) as (made, client):
        js = client.jetstream()
        await js.add_consumer(FACTS, ConsumerConfig(durable_name="other", ack_policy=AckPolicy.EXPLICIT, ack_wait=0.5))
        gate, handled = asyncio.Event(), []

        async def on_scale(told: Fact) -> None:
            handled.append(told.row_version)
            await gate.wait()

        await publish(client, ("ocr",), 3)
        bus = await listening(made(), on_scale)
        other = await js.pull_subscribe("", durable="other", stream=FACTS)
        deliveries = 0
        while deliveries < 3:
            [message] = await other.fetch(1, timeout=20)
            deliveries = message.metadata.num_delivered
        gate.set()
        await eventually(lambda: nothing_left(client))

        info = await js.consumer_info(FACTS, "scheduler")
        assert handled == [1, 2, 3]
        assert info.delivered is not None
        assert info.delivered.consumer_seq == 3
        await bus.stop()


async def test_a_graceful_stop_in_the_middle_settles_what_was_handled(short_path: Path, nats_url: str) -> None:
    """The next copy goes on with the rest: nothing is missing, nothing was done twice, each key is in order."""
    async with connected(short_path, nats_url) as (made, client):
        done: list[tuple[str, int]] = []

        async def on_scale(told: Fact) -> None:
            await asyncio.sleep(0)
            done.append((told.key, told.row_version))

        await publish(client, KEYS, 40)
        for goal in (150, 400, 800):
            bus = await listening(made(), on_scale)
            await eventually(partial(at_least, done, goal), 60)
            await bus.stop()

        assert sorted(done) == sorted((key, number) for key in KEYS for number in range(1, 41))


async def test_a_graceful_stop_gives_back_what_does_not_end(
    short_path: Path, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that hangs is left; its fact and the one behind it go to the next copy without waiting for a limit."""
    monkeypatch.setattr(buses, "FINISH_S", 0.1)
    async with connected(short_path, nats_url) as (made, client):
        begun, done = asyncio.Event(), []

        async def hangs(told: Fact) -> None:
            begun.set()
            await asyncio.Event().wait()

        async def on_scale(told: Fact) -> None:
            done.append(told.row_version)

        await publish(client, ("ocr",), 2)
        bus = await listening(made(), hangs)
        await begun.wait()
        await bus.stop()
        bus = await listening(made(), on_scale)
        await eventually(lambda: sorted(done) == [1, 2], streams.ACK_WAIT_S / 2)
        await bus.stop()


@asynccontextmanager
async def reader(environment: dict[str, str], die_after: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that handles facts and is dead by SIGKILL after so many."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("handling.py")),
        env={**os.environ, **environment, "DIE_AFTER": str(die_after)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(3 * DEADLINE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_nothing_is_lost_when_the_reader_is_killed(
    short_path: Path, nats_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 again and again in the middle of a backlog: every fact is handled, none becomes a dead letter."""
    monkeypatch.setattr(streams, "ACK_WAIT_S", 1.0)
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns, connected(short_path, nats_url) as (_, client):
        admin = await asyncpg.connect(dsns["scheduler"].replace("scheduler@", "postgres@"))
        await admin.execute("CREATE TABLE scheduler.handled (key text, number bigint)")
        await admin.execute("GRANT ALL ON scheduler.handled TO scheduler")
        environment = process_environment(short_path, nats_url, dsns)["scheduler"]
        await publish(client, KEYS, 50)
        for _kill in range(3):
            async with reader(environment, 150) as killed:
                assert await killed.wait() == -signal.SIGKILL

        async def all_handled() -> bool:
            handled = await admin.fetchval("SELECT count(DISTINCT (key, number)) FROM scheduler.handled")
            return bool(handled == 50 * len(KEYS))

        async with reader(environment, 10_000) as last:
            await eventually(all_handled)
            await eventually(lambda: nothing_left(client))
            last.terminate()
            assert await last.wait() == 0

        assert (await client.jetstream().stream_info(DEAD)).state.messages == 0
        await admin.close()
