"""The monitor's mutations are written down in their own transaction, append-only, without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest

from easel_kit.grpc import channel
from easel_proto.internal.v1 import audit_pb2, audit_pb2_grpc
from easel_proto.v1.events_pb2 import CreateEventsTokenRequest, CreateWebhookRequest, DeleteWebhookRequest
from tests.flow.monitor.rig import METADATA, Rig, monitor, surroundings

URL = "http://127.0.0.1:9/hook-path-secret?token=query-secret"


async def trail(rig: Rig, path: Path, process: str = "control") -> list[Any]:
    """The records as `process` is told them."""
    opened = channel(rig.environment["EASEL_MONITOR_ADDR"], (path / f"{process}.token").read_text())
    try:
        stub: Any = audit_pb2_grpc.AuditTrailStub(opened)
        answer = await stub.List(audit_pb2.ListTrailRequest(workspace="default", size=10))
        return list(answer.records)
    finally:
        await opened.close(None)


async def test_webhooks_and_tokens_are_in_the_audit_without_secrets(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Create, delete and token each leave one record; a repeat with the same idempotency key leaves none."""
    seed = short_path / "events.seed"
    seed.write_text("SUSEED")
    extra = {"EASEL_EVENTS_SEED_FILE": str(seed)}
    async with surroundings(short_path, nats_url, postgres_dsn, **extra) as rig, monitor(rig):
        request = CreateWebhookRequest(url=URL, entity="node", idempotency_key="once")
        made = await rig.events.CreateWebhook(request, metadata=METADATA)
        again = await rig.events.CreateWebhook(request, metadata=METADATA)
        await rig.events.CreateToken(CreateEventsTokenRequest(), metadata=METADATA)
        await rig.events.DeleteWebhook(DeleteWebhookRequest(id=made.id), metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError):
            await rig.events.DeleteWebhook(DeleteWebhookRequest(id=made.id), metadata=METADATA)

        records = await trail(rig, short_path)

        assert again.id == made.id
        assert [r.action for r in records] == ["Events.DeleteWebhook", "Events.CreateToken", "Events.CreateWebhook"]
        assert [r.target for r in records] == [f"webhook/{made.id}", "events/token", f"webhook/{made.id}"]
        assert {(r.owner, r.actor) for r in records} == {("monitor", "k1")}
        assert json.loads(records[2].after_json)["origin"] == "http://127.0.0.1:9"
        assert (records[2].before_json, records[0].after_json) == ("", "")
        text = "".join(r.before_json + r.after_json for r in records)
        for hidden in (made.secret, "hook-path-secret", "query-secret", "SUSEED"):
            assert hidden not in text


async def test_only_control_reads_it_and_nobody_changes_it(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig) as process:
        await rig.events.CreateWebhook(CreateWebhookRequest(url="http://127.0.0.1:9/"), metadata=METADATA)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await trail(rig, short_path, "router")
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        async with process.db.connection() as connection:
            for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit"):
                with pytest.raises((asyncpg.RaiseError, asyncpg.InsufficientPrivilegeError)):
                    await connection.execute(statement)
