"""Reading rows by workspace and name: what services and groups have in common. Never decides."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from msgspec import Struct

from easel_kit.db import Connection, Database
from easel_kit.rows import Rows

S = TypeVar("S", bound=Struct)


class NamedRows(Generic[S]):
    """A table whose rows are whole structs, found by their names."""

    def __init__(self, database: Database, table: Literal["services", "groups"], rows: Rows[S, bytes]) -> None:
        self.database, self._rows = database, rows
        self._select = f"SELECT data FROM {table} WHERE workspace = $1"

    async def get(self, workspace: str, name: str, connection: Connection | None = None) -> S | None:
        """The row, or None. With a connection: locked until its transaction ends."""
        query = self._select + " AND name = $2"
        if connection is not None:
            data = await connection.fetchval(query + " FOR UPDATE", workspace, name)
        else:
            async with self.database.connection() as reader:
                data = await reader.fetchval(query, workspace, name)
        return None if data is None else self._rows.decode(data)

    async def page(self, workspace: str, after: str, size: int) -> list[S]:
        """Rows by name, from the one after `after` on."""
        query = self._select + " AND name > $2 ORDER BY name LIMIT $3"
        async with self.database.connection() as connection:
            rows = await connection.fetch(query, workspace, after, size)
        return [self._rows.decode(row["data"]) for row in rows]

    async def some(self, workspace: str, names: list[str], connection: Connection | None = None) -> list[S]:
        """The named ones that exist; all when none is named. With a connection: as its transaction sees them."""
        query = self._select + " AND ($2::text[] = '{}' OR name = ANY($2))"
        if connection is not None:
            rows = await connection.fetch(query, workspace, names)
        else:
            async with self.database.connection() as reader:
                rows = await reader.fetch(query, workspace, names)
        return [self._rows.decode(row["data"]) for row in rows]
