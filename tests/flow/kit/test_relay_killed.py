"""The outbox relay, killed again and again while facts are told: each is in the stream once, in order per key."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from easel_contracts import facts
from easel_contracts.facts import Cause, ScaleState
from easel_kit.db import Database
from easel_kit.outbox import tell
from easel_kit.streams import FACTS
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment

KEYS = ("ocr", "asr", "llm", "tts")
CHANGES = 900
KILLS = 5
SEED = 7


async def _tell_all(database: Database) -> None:
    """CHANGES facts of KEYS, some several in one transaction, some in transactions that are given up."""
    chance = random.Random(SEED)
    versions = dict.fromkeys(KEYS, 0)
    told = 0
    while told < CHANGES:
        keys = chance.sample(KEYS, chance.randint(1, len(KEYS)))
        try:
            async with database.transaction() as connection:
                for key in keys:
                    number = versions[key] + 1
                    await tell(
                        connection, database, entity="scale", verb="decided", key=key, generation=1,
                        row_version=number, cause=Cause(actor="test", reason="Test"),
                        state=ScaleState(service=key, generation=1, number=number, before=0, wanted=number,
                                         reason="Test", message=""),
                    )  # fmt: skip
                if chance.random() < 0.1:
                    raise asyncio.CancelledError
        except asyncio.CancelledError:
            continue
        for key in keys:
            versions[key] += 1
        told += len(keys)


async def _relay(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("relaying.py")), env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def test_every_fact_once_and_in_order_although_the_relay_is_killed(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """kill -9 at moments in the middle of its work; a successor goes on; given up transactions told nothing."""
    chance = random.Random(SEED)
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        await fresh_streams(nats_url, {})
        environment = process_environment(short_path, nats_url, dsns)["autoscaler"]
        database = Database(dsns["autoscaler"], "autoscaler")
        await database.open()
        client = await nats.connect(nats_url)
        telling = asyncio.create_task(_tell_all(database))
        kills = 0
        relay = await _relay(environment)
        try:
            while kills < KILLS:
                before = (await client.jetstream().stream_info(FACTS)).state.messages
                grown = before + chance.randint(1, 60)

                async def at_work(goal: int = grown) -> bool:
                    return (await client.jetstream().stream_info(FACTS)).state.messages >= goal

                await eventually(at_work, 30)
                relay.send_signal(signal.SIGKILL)
                await relay.wait()
                kills += 1
                relay = await _relay(environment)
            await telling

            async def empty() -> bool:
                async with database.connection() as connection:
                    return bool(await connection.fetchval("SELECT NOT EXISTS (SELECT 1 FROM outbox)"))

            await eventually(empty, 30)
        finally:
            telling.cancel()
            relay.kill()
            await relay.wait()
        await _check(client)
        await client.close()
        await database.close()


async def _check(client: Client) -> None:
    js = client.jetstream()
    stored = (await js.stream_info(FACTS)).state.messages
    reader = await js.pull_subscribe("easel.fact.>", stream=FACTS, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    messages: list[Msg] = []
    while len(messages) < stored:
        messages += await reader.fetch(min(500, stored - len(messages)), timeout=5)
    found = [facts.decode(message.data) for message in messages]

    assert max(Counter(fact.id for fact in found).values()) == 1
    assert stored >= CHANGES
    for key in KEYS:
        versions = [fact.row_version for fact in found if fact.key == key]
        assert versions == list(range(1, len(versions) + 1)), key
