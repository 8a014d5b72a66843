"""Events.Watch over a real stream: filters, tail, resuming; tokens."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc.aio
import pytest

from easel_kit.grpc_errors import from_rpc
from easel_kit.testing import eventually, free_port
from easel_proto.v1.common_pb2 import ExplainRequest
from easel_proto.v1.events_pb2 import CreateEventsTokenRequest, CreateWebhookRequest, Event, WatchEventsRequest
from tests.flow.monitor.rig import METADATA, Rig, monitor, surroundings


async def watch(rig: Rig, count: int | None = None, **request: object) -> list[Event]:
    """What a watcher sees: `count` events, or all until the stream ends."""
    call = rig.events.Watch(WatchEventsRequest(**request), metadata=METADATA)  # type: ignore[arg-type]
    seen: list[Event] = []
    async with asyncio.timeout(20):
        async for event in call:
            seen.append(event)
            if count is not None and len(seen) == count:
                call.cancel()
                break
    return seen


async def test_stored_facts_come_in_order_with_their_state(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Without follow, a watcher gets what is stored from its sequence on, each once, and the stream ends."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        first = await rig.node(address="a0")
        for i in range(1, 600):
            await rig.node(address=f"a{i}")

        seen = await watch(rig, from_sequence=first)

        assert [e.sequence for e in seen] == list(range(first, first + 600))
        assert [json.loads(e.data_json)["address"] for e in seen] == [f"a{i}" for i in range(600)]
        assert (seen[0].type, seen[0].key, seen[0].reason, seen[0].actor) == ("node.ready", "n1", "Test", "test")


async def test_tail_and_filters(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """`tail` counts facts that match, however far back they lie."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        wanted = [await rig.node("n2"), await rig.node("n2"), await rig.node("n2")]
        for _ in range(50):
            await rig.node("n1")

        assert [e.sequence for e in await watch(rig, entity="node", key="n2", tail=2)] == wanted[1:]
        assert await watch(rig, entity="scale", tail=5) == []
        assert [e.key for e in await watch(rig, tail=1)] == ["n1"]


async def test_a_follower_resumes_without_gap_or_double(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A watcher that breaks off and comes back with its last sequence + 1, also to a new monitor, misses nothing."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig:
        first = await rig.node(address="a0")
        seen: list[Event] = []

        async def publish() -> None:
            for i in range(1, 300):
                await rig.node(address=f"a{i}")
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:  # a publisher that fails ends the watch
            group.create_task(publish())
            for count in (7, 120, 173):
                async with monitor(rig):
                    start = seen[-1].sequence + 1 if seen else first
                    seen += await watch(rig, count, from_sequence=start, follow=True, entity="node")

        assert [json.loads(e.data_json)["address"] for e in seen] == [f"a{i}" for i in range(300)]


async def test_followers_hear_at_once(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A new fact reaches a follower by its wake-up, long before the slow poll would find it."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        call = rig.events.Watch(WatchEventsRequest(follow=True, entity="node"), metadata=METADATA)
        await asyncio.sleep(0.3)
        for _ in range(20):
            sequence = await rig.node()
            async with asyncio.timeout(2.5):
                event = await call.read()
            assert event.sequence == sequence
        call.cancel()


async def test_a_sequence_that_is_gone_is_said(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A watcher who would miss facts is told, and a sequence from the future is refused."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        for _ in range(10):
            await rig.node()
        await rig.client.jetstream().purge_stream("FACTS", seq=6)

        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await watch(rig, from_sequence=3)
        with pytest.raises(grpc.aio.AioRpcError) as future:
            await watch(rig, from_sequence=99)

        assert from_rpc(gone.value).code == "SEQUENCE_EXPIRED"
        assert from_rpc(gone.value).metadata["oldest"] == "6"
        assert from_rpc(future.value).code == "INVALID_INPUT"
        assert [e.sequence for e in await watch(rig, from_sequence=1)] == [6, 7, 8, 9, 10, 11]


async def test_dead_letters_are_shown_with_their_error(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """What a process could not handle can be read, with who failed and why."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        await rig.client.jetstream().publish("easel.fact.default.service.ocr.created", b"not a fact")

        seen = await watch(rig, 1, dead=True, tail=1, follow=True)

        assert seen[0].type == "unreadable"
        assert seen[0].subject == "easel.fact.default.service.ocr.created"
        assert seen[0].error.startswith("monitor: cannot be read")


async def test_a_token_is_what_the_platform_set_up(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """CreateToken gives the read-only user's seed; without one it says what is missing."""
    (short_path / "events.seed").write_text("SUSEED\n")
    async with surroundings(
        short_path, nats_url, postgres_dsn,
        EASEL_EVENTS_SEED_FILE=f"{short_path}/events.seed", EASEL_EVENTS_NATS_URL="nats://outside:4222",
    ) as rig, monitor(rig):  # fmt: skip
        token = await rig.events.CreateToken(CreateEventsTokenRequest(), metadata=METADATA)

        assert (token.nats_url, token.nkey_seed, token.subject) == (
            "nats://outside:4222",
            "SUSEED",
            "easel.fact.default.>",
        )


async def test_no_token_without_an_events_user(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A platform without that user refuses, and names the setting."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.events.CreateToken(CreateEventsTokenRequest(), metadata=METADATA)

        assert from_rpc(refused.value).code == "NO_EVENTS_USER"


async def test_explain_tells_what_the_streams_hold(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Bounds of the facts, the newest dead letter, and a webhook that nobody answers."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        hook = CreateWebhookRequest(url=f"http://127.0.0.1:{free_port()}/", entity="node")
        made = await rig.events.CreateWebhook(hook, metadata=METADATA)
        newest = await rig.node()
        await rig.client.jetstream().publish("easel.fact.default.service.ocr.created", b"not a fact")
        await watch(rig, 1, dead=True, tail=1, follow=True)

        async def failing() -> dict[str, str] | None:
            answer = await rig.events.Explain(ExplainRequest(), metadata=METADATA)
            lines = {line.code: line.message for line in answer.lines}
            return lines if "WebhookFailing" in lines else None

        lines = await eventually(failing)

        assert f"facts 1 to {newest + 1}" in lines["Facts"]
        assert "1 facts were given up" in lines["DeadLetters"]
        assert made.id in lines["WebhookFailing"]
        assert f"fact {newest}," in lines["WebhookFailing"]
