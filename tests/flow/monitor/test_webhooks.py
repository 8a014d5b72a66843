"""Webhooks against a real HTTP receiver that fails at will."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from aiohttp import web

from easel_kit.grpc_errors import from_rpc
from easel_kit.testing import eventually, free_port
from easel_proto.v1.events_pb2 import CreateWebhookRequest, DeleteWebhookRequest, ListWebhooksRequest, Webhook
from tests.flow.monitor.rig import METADATA, Rig, monitor, surroundings


class Receiver:
    """Takes requests; answers what `statuses` says, 204 when it is empty."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.tries = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def sequences(self) -> list[int]:
        return [int(json.loads(body)["sequence"]) for _, body in self.got]

    async def handle(self, request: web.Request) -> web.Response:
        self.tries += 1
        status = self.statuses.pop(0) if self.statuses else 204
        body = await request.read()
        if status == 204:
            self.got.append(({k.lower(): v for k, v in request.headers.items()}, body))
        return web.Response(status=status, headers={"location": "http://127.0.0.1:1/"} if status == 302 else {})


@asynccontextmanager
async def receiver(at: Receiver) -> AsyncIterator[Receiver]:
    app = web.Application()
    app.add_routes([web.post("/hook", at.handle)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", at.port).start()
    try:
        yield at
    finally:
        await runner.cleanup()


async def create(rig: Rig, url: str, **fields: Any) -> Webhook:
    made: Webhook = await rig.events.CreateWebhook(CreateWebhookRequest(url=url, **fields), metadata=METADATA)
    return made


async def the_webhook(rig: Rig) -> Webhook:
    answer = await rig.events.ListWebhooks(ListWebhooksRequest(), metadata=METADATA)
    return answer.webhooks[0]  # type: ignore[no-any-return]


async def test_facts_arrive_in_order_signed_and_once_accepted(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """A receiver that fails at first gets every matching fact in order; each signature verifies with the secret."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), receiver(Receiver()) as hook:
        await rig.node()
        hook.statuses = [500, 302]
        made = await create(rig, hook.url, entity="node")
        sent = [await rig.node(address=f"a{i}") for i in range(5)]
        await rig.service()

        await eventually(lambda: len(hook.got) == 5)
        stored = await eventually(lambda: done(rig, sent[-1]))

        assert hook.sequences() == sent
        assert hook.tries == 7
        assert (stored.failures, stored.last_error, stored.secret) == (0, "", "")
        for headers, body in hook.got:
            key = base64.b64decode(made.secret.removeprefix("whsec_"))
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
            assert headers["webhook-signature"] == f"v1,{expected}"
        event = json.loads(hook.got[0][1])
        assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "easel.node.ready", "n1")
        assert event["id"] == hook.got[0][0]["webhook-id"]
        assert event["data"]["state"]["address"] == "a0"


async def done(rig: Rig, sequence: int) -> Webhook | None:
    stored = await the_webhook(rig)
    return stored if stored.delivered_sequence == sequence else None


async def test_failures_are_visible_and_nothing_is_skipped_over_a_restart(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """While nobody listens the reason is shown; a new monitor delivers from where the last one was."""
    at = Receiver()
    async with surroundings(short_path, nats_url, postgres_dsn) as rig:
        async with monitor(rig):
            await create(rig, at.url)
            first = await rig.node()
            failing = await eventually(lambda: failed(rig))
            assert "ClientConnectorError" in failing.last_error
            assert f"fact {first} (node.ready)" in failing.last_error
        second = await rig.node()
        async with monitor(rig), receiver(at):
            await eventually(lambda: len(at.got) == 2)

            assert at.sequences() == [first, second]


async def failed(rig: Rig) -> Webhook | None:
    stored = await the_webhook(rig)
    return stored if stored.failures else None


async def test_what_expired_meanwhile_is_said(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Facts that the stream gave up before they were delivered are named; the rest follows."""
    at = Receiver()
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        await create(rig, at.url, entity="node")
        first = await rig.node()
        await eventually(lambda: failed(rig))
        last = [await rig.node() for _ in range(3)][-1]
        await rig.client.jetstream().purge_stream("FACTS", seq=last)
        async with receiver(at):
            await eventually(lambda: len(at.got) == 1)
            stored = await eventually(lambda: done(rig, last))

        assert at.sequences() == [last]
        assert stored.last_error == f"facts {first} to {last - 1} expired before they could be delivered"


async def test_an_idempotency_key_makes_one_webhook(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The same request again gives the same webhook and secret; another one with that key is refused."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        one = await create(rig, "http://127.0.0.1:9/x", idempotency_key="k")
        two = await create(rig, "http://127.0.0.1:9/x", idempotency_key="k")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(rig, "http://127.0.0.1:9/y", idempotency_key="k")

        assert (one.id, one.secret) == (two.id, two.secret)
        assert from_rpc(refused.value).code == "IDEMPOTENCY_KEY_USED"

        await rig.events.DeleteWebhook(DeleteWebhookRequest(id=one.id), metadata=METADATA)
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await rig.events.DeleteWebhook(DeleteWebhookRequest(id=one.id), metadata=METADATA)
        assert from_rpc(gone.value).code == "NO_SUCH_WEBHOOK"


async def test_metadata_addresses_are_refused_also_behind_a_name(
    short_path: Path, nats_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address is refused when the webhook is made, a name when it turns out to mean such an address."""
    import socket

    real = socket.getaddrinfo

    def lying(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("169.254.169.254" if host == "rebound.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lying)
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(rig, "http://169.254.169.254/latest/meta-data")
        await create(rig, "http://rebound.test/hook")
        await rig.node()
        failing = await eventually(lambda: failed(rig))

        assert from_rpc(refused.value).code == "INVALID_INPUT"
        assert "link-local" in failing.last_error


async def test_secrets_are_not_readable_in_the_database(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A copy of the table signs nothing, and the key file is its owner's alone."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig) as process:
        made = await create(rig, "http://127.0.0.1:9/x")
        async with process.db.connection() as connection:
            row = dict(await connection.fetchrow("SELECT * FROM webhook") or {})

        assert made.secret.startswith("whsec_")
        assert made.secret.encode() not in bytes(row["secret_sealed"])
        assert all(made.secret not in str(value) for value in row.values())
        assert (process.settings.home / "webhook.key").stat().st_mode & 0o077 == 0
