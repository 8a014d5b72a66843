"""The process's own PostgreSQL schema: a pool, transactions, guarded writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

UNREACHABLE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,
)
"""Errors that mean "the database does not answer now"; trying again is right.

InternalClientError is what asyncpg raises when the server dies while a connection is being given back.
"""


POOL_SIZE = 8
"""Connections of a process, beside those for LISTEN."""


class Stale(Exception):
    """A guarded write found that someone else was first: reload and decide again."""


class Database:
    """A pool whose connections see only `schema` (and the shared `easel` schema, read-only)."""

    def __init__(self, dsn: str, schema: str, password: str | None = None) -> None:
        self.dsn, self.schema, self._password = dsn, schema, password
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.epoch = 0
        """Stands before every generation; raised when state is restored from a backup."""

    async def open(self, max_size: int = POOL_SIZE) -> None:
        """Opens the pool; raises one of UNREACHABLE where the database does not answer."""
        self._pool = await asyncpg.create_pool(
            self.dsn, password=self._password, min_size=1, max_size=max_size, command_timeout=30,
            server_settings={"search_path": self.schema, "application_name": f"easel-{self.schema}"},
        )  # fmt: skip
        self.epoch = int(await self.pool.fetchval("SELECT value FROM easel.epoch"))

    async def close(self) -> None:
        """Closes the pool."""
        if self._pool:
            await self._pool.close()

    @property
    def pool(self) -> asyncpg.Pool[asyncpg.Record]:
        """The open pool."""
        assert self._pool is not None, "Database.open() comes first"
        return self._pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction; no network call to anything else belongs inside."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A connection for reads that belong together: each sees the rows of the same moment. It writes nothing."""
        async with (
            self.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for reads."""
        async with self.pool.acquire() as connection:
            yield connection

    async def dedicated(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pool, for LISTEN and session locks."""
        return await asyncpg.connect(
            self.dsn, password=self._password, command_timeout=30,
            server_settings={"search_path": self.schema, "application_name": f"easel-{self.schema}-relay"},
        )  # fmt: skip

    def in_use(self) -> float:
        """Share of the pool's connections that are busy, 0 to 1."""
        return 1 - self.pool.get_idle_size() / max(self.pool.get_size(), 1)


def guarded(status: str) -> None:
    """Raises Stale when a guarded UPDATE or DELETE (its command tag) touched no row."""
    if status.endswith(" 0"):
        raise Stale(status)


def one(record: Any | None) -> Any:
    """The record a guarded `UPDATE ... RETURNING` gave; raises Stale where it gave none."""
    if record is None:
        raise Stale("no row matched id and row_version")
    return record
