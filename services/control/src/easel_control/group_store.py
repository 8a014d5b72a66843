"""Rows of groups: reading, and writing under a guard. Every write of a group tells its fact in the same transaction.

Names of groups and services are one name space. Who makes either first takes the name's lock (`hold_names`), which
lasts until the transaction ends, and then looks whether the other is there.

Never decides, and never sees a secret in clear.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Raw

from easel_contracts.facts import Cause, Fact, raw
from easel_contracts.ids import uuid7
from easel_control.decide.groups import GroupChange
from easel_control.model import GroupRow, group_state
from easel_control.named_rows import NamedRows
from easel_kit.clock import Clock
from easel_kit.db import Connection, Database, Stale, guarded, one
from easel_kit.outbox import tell
from easel_kit.rows import packed

_group = packed(GroupRow)


class GroupStore(NamedRows[GroupRow]):
    """Reads and writes of one workspace's groups."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, "groups", _group)
        self._clock = clock

    async def hold_names(self, connection: Connection, workspace: str, names: Iterable[str]) -> None:
        """Nobody else makes a service or a group of these names until the transaction ends. To be called before rows
        of groups are locked."""
        for name in sorted(set(names)):
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"{workspace}/{name}")

    async def is_service(self, connection: Connection, workspace: str, name: str) -> bool:
        """Whether a service has the name."""
        query = "SELECT EXISTS (SELECT 1 FROM services WHERE workspace = $1 AND name = $2)"
        return bool(await connection.fetchval(query, workspace, name))

    async def past(self, connection: Connection, workspace: str, name: str) -> tuple[int, int]:
        """(generation, row_version) at which a group of this name ended; zeros where there was none."""
        row = await connection.fetchrow(
            "SELECT generation, row_version FROM past_groups WHERE workspace = $1 AND name = $2", workspace, name
        )
        return (row["generation"], row["row_version"]) if row else (0, 0)

    async def write(self, connection: Connection, change: GroupChange, actor: str) -> None:
        """Writes what a change makes of the row, and tells it. Raises Stale where someone was first."""
        row = change.row
        write = {"created": self._insert, "updated": self._update, "deleted": self._remove}[change.verb]
        await write(connection, row)
        await tell(
            connection, self.database, entity="group", verb=change.verb, key=row.name, generation=row.generation,
            row_version=row.row_version, state=group_state(row), workspace=row.workspace, clock=self._clock,
            cause=Cause(actor=actor, reason=change.reason, message=change.message),
        )  # fmt: skip

    async def _insert(self, connection: Connection, row: GroupRow) -> None:
        status = await connection.execute(
            "INSERT INTO groups (workspace, name, row_version, generation, data) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT DO NOTHING",
            row.workspace, row.name, row.row_version, row.generation, _group.encode(row),
        )  # fmt: skip
        if status.endswith(" 0"):
            raise Stale(row.name)

    async def _update(self, connection: Connection, row: GroupRow) -> None:
        before = await connection.fetchrow(
            "UPDATE groups g SET row_version = $3, generation = $4, data = $5"
            " FROM groups b WHERE g.workspace = $1 AND g.name = $2 AND g.row_version = $3 - 1"
            " AND (b.workspace, b.name, b.row_version) = (g.workspace, g.name, g.row_version) RETURNING b.data",
            row.workspace, row.name, row.row_version, row.generation, _group.encode(row),
        )  # fmt: skip
        if (kept := _group.kept(one(before)["data"], row)) is not None:
            await connection.execute(
                "UPDATE groups SET data = $3 WHERE workspace = $1 AND name = $2", row.workspace, row.name, kept
            )

    async def _remove(self, connection: Connection, row: GroupRow) -> None:
        status = await connection.execute(
            "DELETE FROM groups WHERE workspace = $1 AND name = $2 AND row_version = $3 - 1",
            row.workspace, row.name, row.row_version,
        )  # fmt: skip
        guarded(status)
        await connection.execute(
            "DELETE FROM tokens WHERE workspace = $1 AND kind = 'group' AND owner = $2", row.workspace, row.name
        )
        await connection.execute(
            "INSERT INTO past_groups (workspace, name, generation, row_version, state) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (workspace, name) DO UPDATE SET generation = excluded.generation,"
            " row_version = excluded.row_version, state = excluded.state, deleted_at = now()",
            row.workspace, row.name, row.generation, row.row_version, bytes(raw(group_state(row))),
        )  # fmt: skip

    async def facts(self) -> list[Fact]:
        """The newest fact of every group, deleted ones of the last 30 days too, for readers that rebuild."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT data FROM groups ORDER BY workspace, name")
            past = await connection.fetch(
                "SELECT * FROM past_groups p WHERE NOT EXISTS"
                " (SELECT 1 FROM groups g WHERE g.workspace = p.workspace AND g.name = p.name)"
            )
        living = [
            self._listed("updated", row.workspace, row.name, row.generation, row.row_version, row.updated_at,
                         raw(group_state(row)))
            for row in (_group.decode(row["data"]) for row in rows)
        ]  # fmt: skip
        return living + [
            self._listed("deleted", p["workspace"], p["name"], p["generation"], p["row_version"], p["deleted_at"],
                         Raw(p["state"]))
            for p in past
        ]  # fmt: skip

    def _listed(
        self, verb: str, workspace: str, name: str, generation: int, row_version: int, at: datetime, data: Raw
    ) -> Fact:
        return Fact(
            id=uuid7(), entity="group", verb=verb, workspace=workspace, key=name, epoch=self.database.epoch,
            generation=generation, row_version=row_version, at=at, cause=Cause(actor="control", reason="Listed"),
            data=data,
        )  # fmt: skip

    async def prune(self) -> None:
        """Forgets names long gone (readers forget them after 8 days)."""
        async with self.database.connection() as connection:
            await connection.execute("DELETE FROM past_groups WHERE deleted_at < now() - interval '30 days'")
