"""Rows of canaries: reading, and writing under a guard. Never decides."""

from __future__ import annotations

import asyncpg

from easel_contracts.errors import Conflict
from easel_control.decide.canary import Canary
from easel_kit.db import Connection, Database, one
from easel_kit.leases import shard_of
from easel_kit.rows import packed

KEEP = 20
"""Canaries of a name that are remembered, the one that is on among them."""

_canary = packed(Canary)


class CanaryStore:
    """Reads and writes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def on(self, workspace: str, name: str, connection: Connection | None = None) -> Canary | None:
        """The one that is on. With a connection: locked until its transaction ends."""
        query = "SELECT data FROM canaries WHERE workspace = $1 AND name = $2 AND ended_at IS NULL"
        if connection is not None:
            data = await connection.fetchval(query + " FOR UPDATE", workspace, name)
        else:
            async with self.database.connection() as reader:
                data = await reader.fetchval(query, workspace, name)
        return None if data is None else _canary.decode(data)

    async def any_on(self, workspace: str, names: list[str], connection: Connection) -> str:
        """One of the names of which a canary is on; empty: none is."""
        found: str | None = await connection.fetchval(
            "SELECT name FROM canaries WHERE workspace = $1 AND name = ANY($2) AND ended_at IS NULL LIMIT 1",
            workspace, names,
        )  # fmt: skip
        return found or ""

    async def find(self, workspace: str, name: str) -> Canary | None:
        """The newest of a name, or the one with this id."""
        async with self.database.connection() as connection:
            data = await connection.fetchval(
                "SELECT data FROM canaries WHERE workspace = $1 AND (name = $2 OR id = $2)"
                " ORDER BY ended_at IS NOT NULL, started_at DESC LIMIT 1",
                workspace, name,
            )  # fmt: skip
        return None if data is None else _canary.decode(data)

    async def newest(self, workspace: str, name: str, size: int) -> list[Canary]:
        """Those that are on first, then the newest; of all names where none is given."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM canaries WHERE workspace = $1 AND ($2 = '' OR name = $2)"
                " ORDER BY ended_at IS NOT NULL, started_at DESC LIMIT $3",
                workspace, name, size,
            )  # fmt: skip
        return [_canary.decode(row["data"]) for row in rows]

    async def names(self, workspace: str) -> list[str]:
        """Of all that are on."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT name FROM canaries WHERE workspace = $1 AND ended_at IS NULL", workspace
            )
        return [row["name"] for row in rows]

    async def insert(self, connection: Connection, canary: Canary) -> None:
        """Writes a new one and forgets the oldest of its name. Raises Conflict where one is on."""
        try:
            await connection.execute(
                "INSERT INTO canaries (workspace, id, name, kind, row_version, state, data, started_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                canary.workspace, canary.id, canary.name, canary.kind, canary.row_version, canary.state,
                _canary.encode(canary), canary.started_at,
            )  # fmt: skip
        except asyncpg.UniqueViolationError as error:
            raise is_on(canary.name) from error
        await connection.execute(
            "DELETE FROM canaries WHERE workspace = $1 AND name = $2 AND ended_at IS NOT NULL AND id NOT IN"
            " (SELECT id FROM canaries WHERE workspace = $1 AND name = $2 ORDER BY started_at DESC LIMIT $3)",
            canary.workspace, canary.name, KEEP,
        )  # fmt: skip

    async def update(self, connection: Connection, canary: Canary, fence: int | None = None) -> None:
        """Writes one whose row_version was raised by one; raises Stale where someone was first, or the lease is gone
        under which it was decided."""
        before = await connection.fetchrow(
            "UPDATE canaries c SET row_version = $3, state = $4, data = $5, ended_at = $6"
            " FROM canaries b WHERE c.workspace = $1 AND c.id = $2 AND c.row_version = $3 - 1"
            " AND (b.workspace, b.id, b.row_version) = (c.workspace, c.id, c.row_version)"
            " AND ($7::bigint IS NULL OR EXISTS (SELECT 1 FROM leases WHERE shard = $8 AND token = $7))"
            " RETURNING b.data",
            canary.workspace, canary.id, canary.row_version, canary.state, _canary.encode(canary), canary.ended_at,
            fence, shard_of(canary.name),
        )  # fmt: skip
        if (kept := _canary.kept(one(before)["data"], canary)) is not None:
            await connection.execute(
                "UPDATE canaries SET data = $3 WHERE workspace = $1 AND id = $2", canary.workspace, canary.id, kept
            )


def is_on(name: str) -> Conflict:
    """The error for a second canary at a time."""
    return Conflict(
        "CANARY_ON", f"a canary of {name} is on; there is one at a time",
        f"`easel canary desc {name}` shows it, `easel canary abort {name}` ends it",
    )  # fmt: skip
