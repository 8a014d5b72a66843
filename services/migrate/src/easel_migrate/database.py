"""PostgreSQL: the database, the shared epoch, one schema and one role per process, each process's steps.

Runs under one advisory lock, so that any number of migrates may start at once. Refuses a database that a newer Easel
wrote before it changes anything. Never drops.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from easel_kit import migrations
from easel_kit.db import UNREACHABLE
from easel_kit.settings import secret
from easel_migrate.processes import WITH_SCHEMA, package, role
from easel_migrate.settings import Settings

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
RETRY_S = 0.1
TOKENS_OF_AN_EPOCH = 2**40
"""More than a lease changes hands within one."""


async def connect(settings: Settings) -> Admin:
    """An administrator's connection; makes the database when it does not exist. Raises TimeoutError in the end."""
    password = secret(settings.db_password_file)
    async with asyncio.timeout(settings.wait_s):
        while True:
            try:
                return await asyncpg.connect(settings.db_dsn, password=password, server_settings=_NAME)
            except asyncpg.InvalidCatalogNameError:
                await _create_database(settings.db_dsn, password)
            except UNREACHABLE:
                await asyncio.sleep(RETRY_S)


_NAME = {"application_name": "easel-migrate"}


def database_name(dsn: str) -> str:
    """The database a DSN names."""
    return urlsplit(dsn).path.lstrip("/")


async def _create_database(dsn: str, password: str | None) -> None:
    everyday = urlunsplit(urlsplit(dsn)._replace(path="/postgres"))
    connection = await asyncpg.connect(everyday, password=password, server_settings=_NAME)
    try:
        await connection.execute(f'CREATE DATABASE "{database_name(dsn)}"')
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        pass  # another migrate was first
    finally:
        await connection.close()


async def migrate(connection: Admin, settings: Settings) -> dict[str, int]:
    """Brings everything up to date; steps run per schema. Raises migrations.NewerDatabase."""
    await connection.execute("SELECT pg_advisory_lock($1)", migrations.LOCK)
    try:
        steps = {process: migrations.steps_of(package(process)) for process in WITH_SCHEMA}
        await _refuse_newer(connection, steps)
        await _close_to_strangers(connection, database_name(settings.db_dsn))
        await migrations.ensure_shared(connection)
        ran = {}
        for process in WITH_SCHEMA:
            await migrations.ensure_role(
                connection, role(process), _password(settings, process), database_name(settings.db_dsn)
            )
            ran[process] = await migrations.apply(connection, process, steps[process])
            await migrations.grant(connection, process, role(process))
        return ran
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", migrations.LOCK)


async def raise_epoch(connection: Admin) -> int:
    """The new epoch. What was told before it is older than everything told from now on, whatever its row_version.

    Fencing tokens rise with it: agents remember the highest they have seen, and a backup's are lower.
    """
    async with connection.transaction():
        epoch = int(await connection.fetchval("UPDATE easel.epoch SET value = value + 1 RETURNING value"))
        for process in WITH_SCHEMA:
            await connection.execute(
                f"UPDATE \"{process}\".leases SET token = greatest(token, $1), holder = NULL, expires_at = '-infinity'",
                epoch * TOKENS_OF_AN_EPOCH,
            )
    return epoch


def _password(settings: Settings, process: str) -> str | None:
    return secret(settings.passwords_dir / process) if settings.passwords_dir else None


async def _refuse_newer(connection: Admin, steps: dict[str, list[tuple[str, str]]]) -> None:
    for process, known in steps.items():
        if await connection.fetchval("SELECT to_regclass($1)", f"{process}.migrations") is None:
            continue
        done = {r["name"] for r in await connection.fetch(f'SELECT name FROM "{process}".migrations')}
        if unknown := sorted(done - {name for name, _ in known}):
            raise migrations.NewerDatabase(
                f"schema {process} has {', '.join(unknown)}, which this version of Easel does not know: "
                "a newer one wrote it. Install that version again, or restore a backup; nothing was changed"
            )


async def _close_to_strangers(connection: Admin, database: str) -> None:
    """A role may connect and make nothing, except where it is told."""
    await connection.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
    await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
