"""The walls between NATS users, on a real server: who may tell which facts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from easel_contracts.facts import Cause, Fact, encode
from easel_contracts.ids import fact_subject
from easel_kit import streams
from easel_kit.bus import Bus
from easel_kit.settings import ProcessSettings
from easel_kit.testing import eventually
from easel_migrate.keys import ROLES
from easel_migrate.nats_rights import HEARS_METRICS, OWNED
from tests.flow.standalone.stores import Stores, running


@pytest.fixture
async def stores(short_path: Path) -> AsyncIterator[Stores]:
    """NATS with the streams that migrate makes."""
    async with running(short_path) as found:
        admin = await found.client("migrate")
        js = admin.jetstream()
        for config in streams.stream_configs():
            await streams.ensure_stream(js, config)
        await streams.ensure_consumer(js, streams.consumer_config("router", ("service",)))
        await admin.close()
        yield found


async def _refused(client: Client, subject: str, seen: list[Exception]) -> bool:
    """Whether the server refuses a publish: it says so asynchronously, naming the subject."""
    await client.publish(subject, b"x")
    await client.flush()
    return bool(await eventually(lambda: [e for e in seen if subject.lower() in str(e).lower()]))


async def test_process_tells_its_own_facts_only(stores: Stores) -> None:
    """control may tell of services; of replicas only the scheduler."""
    seen: list[Exception] = []
    client = await stores.client("control", seen.append)

    stored = await client.jetstream().publish(fact_subject("default", "service", "ocr", "created"), b"{}")

    assert stored.stream == "FACTS"
    for user, entities in OWNED.items():
        for entity in entities if user != "control" else ():
            assert await _refused(client, fact_subject("default", entity, "ocr", "x"), seen)
    await client.close()


async def test_process_cannot_read_anothers_replies_or_consumer(stores: Stores) -> None:
    """Inboxes and durable consumers are their owner's."""
    seen: list[Exception] = []
    client = await stores.client("control", seen.append)
    await client.subscribe("_INBOX_router.>")
    await client.subscribe("easel.fact.>")

    await eventually(lambda: len([e for e in seen if "subscription" in str(e).lower()]) == 2)

    assert await _refused(client, "$JS.API.CONSUMER.MSG.NEXT.FACTS.router", seen)
    assert await _refused(client, "$JS.API.STREAM.DELETE.FACTS", seen)
    assert await _refused(client, "$JS.API.STREAM.PURGE.FACTS", seen)
    await client.close()


async def test_events_user_reads_and_cannot_publish(stores: Stores) -> None:
    """Outsiders hear facts and can read stored ones; they change nothing."""
    seen: list[Exception] = []
    outsider = await stores.client("events", seen.append)
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    await outsider.subscribe("easel.fact.>", cb=hear)
    await outsider.flush()
    owner = await stores.client("control")
    subject = fact_subject("default", "service", "ocr", "created")
    await owner.jetstream().publish(subject, b"hello")

    await eventually(lambda: heard == [subject])
    stored = await outsider.jetstream().get_last_msg("FACTS", subject, direct=True)

    assert stored.data == b"hello"
    assert await _refused(outsider, subject, seen)
    assert await _refused(outsider, "easel.metric.default.service.ocr", seen)
    assert await _refused(outsider, "easel.dead.control", seen)
    assert await _refused(outsider, "$JS.API.STREAM.MSG.DELETE.FACTS", seen)
    assert await _refused(outsider, "$JS.API.CONSUMER.CREATE.FACTS", seen)
    await owner.close()
    await outsider.close()


async def test_stranger_is_not_let_in(stores: Stores) -> None:
    """No user without a key: a replica on this machine reaches the port and no more."""
    with pytest.raises((nats.errors.Error, asyncio.TimeoutError)):
        await nats.connect(
            f"nats://127.0.0.1:{stores.config.nats_port}", allow_reconnect=False, max_reconnect_attempts=0,
            connect_timeout=2, error_cb=_ignore,
        )  # fmt: skip


async def _ignore(_: Exception) -> None:
    """The refusal itself is the point."""


@pytest.mark.parametrize("process", ROLES)
async def test_kit_bus_needs_no_more_than_its_rights(
    stores: Stores, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process does on the bus in its life passes the wall: hear facts, acknowledge, tell, bury, look."""
    seen: list[Exception] = []

    async def on_error(_: Bus, error: Exception) -> None:
        seen.append(error)

    monkeypatch.setattr(Bus, "_on_error", on_error)
    admin = await stores.client("migrate")
    await streams.ensure_consumer(admin.jetstream(), streams.consumer_config(process, ("service",)))
    settings = ProcessSettings(
        home=stores.home.root, nats_url=f"nats://127.0.0.1:{stores.config.nats_port}",
        nats_seed_file=stores.keys.seed(process),
    )  # fmt: skip
    heard: list[str] = []

    async def hear(fact: Fact) -> None:
        heard.append(fact.key)

    async def measure(subject: str, payload: bytes) -> None:
        heard.append(subject)

    bus = Bus(settings, process)
    bus.on_facts({"service": hear})
    if process in HEARS_METRICS:
        bus.on_metrics("easel.metric.*.service.>", measure)
    await bus.connect()
    await bus.start()
    await bus.check_consumer(("service",))
    control = await stores.client("control")
    await control.jetstream().publish(fact_subject("default", "service", "good", "created"), _fact("good"))
    await control.jetstream().publish(fact_subject("default", "service", "bad", "created"), b"not a fact")

    await eventually(lambda: heard == ["good"] and bus.dead == 1)

    info = await admin.jetstream().stream_info("DEAD")
    assert info.state.messages == 1
    assert seen == []
    await bus.stop()
    await control.close()
    await admin.close()


def _fact(key: str) -> bytes:
    return encode(
        Fact(
            id="1", entity="service", verb="created", workspace="default", key=key, epoch=1, generation=1,
            row_version=1, at=datetime(2026, 1, 1, tzinfo=UTC), cause=Cause(actor="x", reason="X"),
            data=msgspec.Raw(msgspec.msgpack.encode({})),
        )
    )  # fmt: skip
