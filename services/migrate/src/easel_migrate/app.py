"""The one step before all: schemas, roles, streams, consumers, the first access key. Idempotent, quick when done."""

from __future__ import annotations

import asyncio

from easel_migrate import bus, database, first_key
from easel_migrate.settings import Settings


async def migrate(settings: Settings) -> list[str]:
    """Does everything and says what. Raises what the stores raised, TimeoutError where one does not answer."""
    said_of_database, said_of_bus = await asyncio.gather(_database(settings), _bus(settings))
    return said_of_database + said_of_bus


async def _database(settings: Settings) -> list[str]:
    connection = await database.connect(settings)
    try:
        ran = await database.migrate(connection, settings)
        said = [f"schema {schema}: {count} steps" for schema, count in ran.items() if count]
        if settings.restored:
            said.append(f"epoch {await database.raise_epoch(connection)}")
        known = settings.access_key_file is None or await first_key.is_known(connection, settings.access_key_file)
    finally:
        await connection.close()
    if settings.access_key_file is not None and not known:
        said.append(f"access key {await first_key.ensure(settings, settings.access_key_file)} made known")
    return said


async def _bus(settings: Settings) -> list[str]:
    client = await bus.connect(settings)
    try:
        streams, consumers = await bus.migrate(client, settings)
        return [f"{streams} streams, {consumers} consumers"]
    finally:
        await client.close()
