"""Brings one process's schema up to date: expand–contract steps, once each, under an advisory lock.

Versions N and N−1 of a process run side by side, so a step may only add (the next release removes).
A database that is newer than the code is refused.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable

import asyncpg

LOCK = 0x45A5E1
"""Advisory lock key: one migration at a time per database."""


class NewerDatabase(Exception):
    """The database was migrated by a newer Easel; downgrades are refused."""


def steps_of(package: str) -> list[tuple[str, str]]:
    """(name, SQL) of the kit's and the package's own steps, in order."""
    found = [(f"kit/{p.name}", p.read_text()) for p in _sql(files("easel_kit").joinpath("sql"))]
    own = files(package).joinpath("migrations")
    return found + [(f"own/{p.name}", p.read_text()) for p in _sql(own)]


def _sql(directory: Traversable) -> list[Traversable]:
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)


async def apply(connection: asyncpg.Connection[asyncpg.Record], schema: str, steps: list[tuple[str, str]]) -> int:
    """Runs the steps that have not run yet and says how many. The connection is an administrator's."""
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(
            f'CREATE TABLE IF NOT EXISTS "{schema}".migrations '
            "(name text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
        )
        done = {r["name"] for r in await connection.fetch(f'SELECT name FROM "{schema}".migrations')}
        if unknown := done - {name for name, _ in steps}:
            raise NewerDatabase(
                f"schema {schema} has {sorted(unknown)}, which this version does not know: "
                "it was written by a newer Easel; install that version or restore a backup"
            )
        todo = [(name, sql) for name, sql in steps if name not in done]
        for name, sql in todo:
            async with connection.transaction():
                await connection.execute(f'SET LOCAL search_path TO "{schema}"')
                await connection.execute(sql)
                await connection.execute(f'INSERT INTO "{schema}".migrations (name) VALUES ($1)', name)
        return len(todo)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def ensure_role(
    connection: asyncpg.Connection[asyncpg.Record], role: str, password: str | None, database: str
) -> None:
    """A login role that owns nothing but may use its own schema (and read the shared one)."""
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f'CREATE ROLE "{role}" LOGIN')
    if password:
        quoted = await connection.fetchval("SELECT quote_literal($1::text)", password)
        await connection.execute(f'ALTER ROLE "{role}" PASSWORD {quoted}')
    await connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"')


async def grant(connection: asyncpg.Connection[asyncpg.Record], schema: str, role: str) -> None:
    """Rights of a process's role on its own schema, and to read the epoch."""
    for statement in (
        f'GRANT USAGE ON SCHEMA "{schema}", easel TO "{role}"',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO "{role}"',
        f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "{schema}" TO "{role}"',
        f'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "{schema}" TO "{role}"',
        f'GRANT SELECT ON easel.epoch TO "{role}"',
    ):
        await connection.execute(statement)


async def ensure_shared(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """The shared schema: one row, the epoch, raised on restore from a backup."""
    await connection.execute("CREATE SCHEMA IF NOT EXISTS easel")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS easel.epoch"
        " (one boolean PRIMARY KEY DEFAULT true CHECK (one), value bigint NOT NULL)"
    )
    await connection.execute("INSERT INTO easel.epoch (value) VALUES (1) ON CONFLICT DO NOTHING")
