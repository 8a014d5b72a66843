"""Side by side with N−1 and N+1, and after a restore: what is tolerated, and what is dropped."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import nats

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, KeyState, ScaleState
from easel_contracts.ids import uuid7
from easel_contracts.metrics import ReplicaMetrics
from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.keyring import sha256_hex
from easel_kit.outbox import tell
from easel_kit.projection import Projection
from easel_kit.run import Process
from easel_kit.streams import DEAD, FACTS
from easel_kit.testing import eventually, fresh_database, fresh_streams, plain_settings

CAUSE = Cause(actor="test", reason="Test")


def scale(service: str, number: int, epoch: int = 1) -> Fact:
    state = ScaleState(
        service=service, generation=1, number=number, before=1, wanted=number, reason="Test", message=""
    )  # fmt: skip
    return Fact(
        id=uuid7(), entity="scale", verb="decided", workspace="default", key=service, epoch=epoch, generation=1,
        row_version=number, at=SystemClock().now(), cause=CAUSE, data=facts.raw(state),
    )  # fmt: skip


def of_another_version(fact: Fact, *, add: dict[str, Any], drop: tuple[str, ...] = ()) -> bytes:
    """The fact as a version with other fields writes it, in the envelope, the cause and the data."""
    envelope = msgspec.msgpack.decode(facts.encode(fact))
    for part in (envelope, envelope["cause"], envelope["data"]):
        part.update(add)
        for name in drop:
            part.pop(name, None)
    return msgspec.msgpack.encode(envelope)


async def test_facts_of_other_versions_are_handled(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Fields that N+1 added are ignored, fields that N−1 does not have yet take their defaults; no dead letter."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        await fresh_streams(nats_url, {"scheduler": ("scale",)})
        reader = Process("scheduler", plain_settings(short_path, nats_url, "scheduler", dsns), ("scale",))
        await reader.connect()
        projection = Projection(reader.db, "scale", ScaleState)
        seen: list[Fact] = []

        async def on_scale(fact: Fact) -> None:
            if await projection.apply(fact):
                seen.append(fact)

        reader.subscribe({"scale": on_scale})
        await reader.start()
        background = asyncio.create_task(reader.run_background())
        client = await nats.connect(nats_url)
        newer = of_another_version(scale("newer", 1), add={"invented_later": {"deep": [1, None]}, "schema_version": 9})
        older = of_another_version(scale("older", 2), add={}, drop=("schema_version", "inputs", "traceparent"))

        for name, payload in (("newer", newer), ("older", older)):
            await client.jetstream().publish(f"easel.fact.default.scale.{name}.decided", payload, stream=FACTS)
        await eventually(lambda: len(seen) == 2)

        assert {state.service for state in await projection.all()} == {"newer", "older"}
        assert (await client.jetstream().stream_info(DEAD)).state.messages == 0
        await client.close()
        background.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await background
        await reader.stop()


def test_metrics_of_other_versions_are_read() -> None:
    """One-second metrics too: more fields, and no schema_version."""
    sent = {
        "workspace": "default", "service": "ocr", "replica": "ocr-1-abcde", "node": "local", "at_unix_s": 1.0,
        "cpu_cores": 0.5, "memory_mib": 100.0, "invented_later": [1, 2],
    }  # fmt: skip

    read = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=ReplicaMetrics)

    assert (read.replica, read.cpu_cores, read.schema_version) == ("ocr-1-abcde", 0.5, 1)


async def test_code_n_works_on_tables_of_n_plus_1(postgres_dsn: str) -> None:
    """The next version has added columns and a table; this one reads and writes as before."""
    async with fresh_database(postgres_dsn, "easel_autoscaler") as dsns:
        admin = await asyncpg.connect(dsns["autoscaler"].replace("autoscaler@", "postgres@"))
        for table in ("outbox", "projection", "leases", "members"):
            await admin.execute(f"ALTER TABLE autoscaler.{table} ADD COLUMN invented_later text DEFAULT 'x' NOT NULL")
        await admin.close()
        database = Database(dsns["autoscaler"], "autoscaler")
        await database.open()
        projection = Projection(database, "scale", ScaleState)
        async with database.transaction() as connection:
            told = await tell(
                connection, database, entity="scale", verb="decided", key="ocr", generation=1, row_version=1,
                state=facts.state_of(scale("ocr", 1), ScaleState), cause=CAUSE,
            )  # fmt: skip

        assert await projection.apply(told)
        assert [state.service for state in await projection.all()] == ["ocr"]
        await database.close()


async def _raise_epoch(dsn: str, role: str) -> None:
    admin = await asyncpg.connect(dsn.replace(f"{role}@", "postgres@"))
    await admin.execute("UPDATE easel.epoch SET value = value + 1")
    await admin.close()


async def test_what_was_told_before_a_restore_is_dropped(postgres_dsn: str) -> None:
    """Whatever its row version, and also of entities that the restored state never had."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        before = Database(dsns["scheduler"], "scheduler")
        await before.open()
        assert await Projection(before, "scale", ScaleState).apply(scale("kept", 5))
        await before.close()
        await _raise_epoch(dsns["scheduler"], "scheduler")
        after = Database(dsns["scheduler"], "scheduler")
        await after.open()
        projection = Projection(after, "scale", ScaleState)

        assert after.epoch == 2
        assert not await projection.apply(scale("kept", 50, epoch=1))
        assert not await projection.apply(scale("made-after-the-backup", 1, epoch=1))
        assert await projection.apply(scale("kept", 4, epoch=2))
        assert not await projection.apply(scale("kept", 6, epoch=1))

        assert [(s.service, s.number) for s in await projection.all()] == [("kept", 4)]
        await after.close()


async def test_a_revoked_key_is_not_revived_by_a_late_repetition(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """`created` delivered again after `revoked` (redelivery, rebuild) changes nothing."""
    async with fresh_database(postgres_dsn, "easel_scheduler") as dsns:
        await fresh_streams(nats_url, {"scheduler": ()})
        process = Process("scheduler", plain_settings(short_path, nats_url, "scheduler", dsns), ())
        await process.connect()
        secret = "ek_a_" + "s" * 32
        key = KeyState(id="a", sha256=sha256_hex(secret))

        def told(state: KeyState, verb: str, row_version: int) -> Fact:
            return Fact(
                id=uuid7(), entity="key", verb=verb, workspace="default", key="a", epoch=1, generation=1,
                row_version=row_version, at=SystemClock().now(), cause=CAUSE, data=facts.raw(state),
            )  # fmt: skip

        await process._on_key(told(key, "created", 1))
        assert process.keyring.user(secret) == "a"
        await process._on_key(told(msgspec.structs.replace(key, revoked=True), "revoked", 2))
        await process._on_key(told(key, "created", 1))

        assert process.keyring.user(secret) is None
        await process.bus.stop()
        await process.db.close()
