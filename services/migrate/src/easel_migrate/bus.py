"""NATS: streams and durable consumers, as `easel_kit.streams` and each `subscriptions.py` say. Never deletes."""

from __future__ import annotations

import asyncio

import nats
from nats.aio.client import Client
from nats.errors import NoServersError
from nats.js.errors import ServiceUnavailableError

from easel_kit import streams
from easel_kit.settings import secret
from easel_migrate.processes import WITH_SCHEMA, listens
from easel_migrate.settings import Settings

RETRY_S = 0.1


async def connect(settings: Settings) -> Client:
    """A connection with JetStream answering. Raises TimeoutError in the end."""
    async with asyncio.timeout(settings.wait_s):
        while True:
            try:
                client = await nats.connect(
                    settings.nats_url, nkeys_seed_str=secret(settings.nats_seed_file), name="easel-migrate",
                    inbox_prefix="_INBOX_migrate", allow_reconnect=False, connect_timeout=2, error_cb=_quiet,
                )  # fmt: skip
            except (OSError, NoServersError):
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await client.jetstream().account_info()
                return client
            except (ServiceUnavailableError, TimeoutError):
                await client.close()
                await asyncio.sleep(RETRY_S)


async def _quiet(_: Exception) -> None:
    """Errors reach us through the calls themselves; the library would print them as tracebacks as well."""


async def migrate(client: Client, settings: Settings) -> tuple[int, int]:
    """Makes or updates streams and consumers; how many there are. Raises nats APIError where one is refused."""
    js = client.jetstream(timeout=10)
    configs = streams.stream_configs(settings.nats_replicas)
    await asyncio.gather(*(streams.ensure_stream(js, config) for config in configs))
    consumers = [streams.consumer_config(process, listens(process)) for process in WITH_SCHEMA]
    await asyncio.gather(*(streams.ensure_consumer(js, config) for config in consumers))
    return len(configs), len(consumers)
