"""Control's rows: reading, and writing under a guard. Every write of a service tells its fact in the same transaction.

Never decides, and never sees a secret in clear.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from easel_contracts.facts import Cause, Fact, ReplicaState, raw
from easel_contracts.ids import uuid7
from easel_contracts.spec import RevisionSpec
from easel_control.decide.revisions import steps_to
from easel_control.model import RevisionRow, ServiceRow, service_state
from easel_control.named_rows import NamedRows
from easel_kit.clock import Clock
from easel_kit.db import Connection, Database, guarded, one
from easel_kit.leases import shard_of
from easel_kit.outbox import tell
from easel_kit.rows import packed

_service = packed(ServiceRow)
_revision = packed(RevisionRow)
_replica = msgspec.msgpack.Decoder(ReplicaState)


KEEP_REVISIONS = 100
"""Revisions of a service that are remembered, newest first; what runs, or may come back, always is."""


class Store(NamedRows[ServiceRow]):
    """Reads and writes of one workspace's services and revisions."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database, "services", _service)
        self._clock = clock

    async def mirroring_to(self, workspace: str, target: str) -> list[str]:
        """Names of the services whose requests are copied to a service."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT name FROM services WHERE workspace = $1 AND mirrors_to @> ARRAY[$2] ORDER BY name",
                workspace, target,
            )  # fmt: skip
        return [row["name"] for row in rows]

    async def names(self) -> list[tuple[str, str]]:
        """(workspace, name) of every service."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT workspace, name FROM services")
        return [(row["workspace"], row["name"]) for row in rows]

    async def insert(self, connection: Connection, row: ServiceRow) -> bool:
        """Writes a new service; False where the name is taken."""
        status = await connection.execute(
            "INSERT INTO services (workspace, name, row_version, generation, wanted, status, data, mirrors_to)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            row.workspace, row.name, row.row_version, row.generation, row.wanted, row.status,
            _service.encode(row), _mirrors_to(row),
        )  # fmt: skip
        return not status.endswith(" 0")

    async def update(self, connection: Connection, row: ServiceRow, fence: int | None = None) -> None:
        """Writes a service whose row_version was raised by one; raises Stale where someone was first.

        `fence`: the token of the lease under which this was decided; one that is not the newest is refused.
        """
        before = await connection.fetchrow(
            "UPDATE services s SET row_version = $3, generation = $4, wanted = $5, status = $6, data = $7,"
            " mirrors_to = $10"
            " FROM services b WHERE s.workspace = $1 AND s.name = $2 AND s.row_version = $3 - 1"
            " AND (b.workspace, b.name, b.row_version) = (s.workspace, s.name, s.row_version)"
            " AND ($8::bigint IS NULL OR EXISTS (SELECT 1 FROM leases WHERE shard = $9 AND token = $8))"
            " RETURNING b.data",
            row.workspace, row.name, row.row_version, row.generation, row.wanted, row.status, _service.encode(row),
            fence, shard_of(row.name), _mirrors_to(row),
        )  # fmt: skip
        if (kept := _service.kept(one(before)["data"], row)) is not None:
            await connection.execute(
                "UPDATE services SET data = $3 WHERE workspace = $1 AND name = $2", row.workspace, row.name, kept
            )

    async def remove(self, connection: Connection, row: ServiceRow, fence: int | None) -> None:
        """Removes a service with its revisions and tokens, and remembers how far its name has counted. Raises Stale."""
        status = await connection.execute(
            "DELETE FROM services WHERE workspace = $1 AND name = $2 AND row_version = $3 - 1"
            " AND ($4::bigint IS NULL OR EXISTS (SELECT 1 FROM leases WHERE shard = $5 AND token = $4))",
            row.workspace, row.name, row.row_version, fence, shard_of(row.name),
        )  # fmt: skip
        guarded(status)
        await connection.execute(
            "DELETE FROM tokens WHERE workspace = $1 AND kind = 'service' AND owner = $2", row.workspace, row.name
        )
        await connection.execute(
            "INSERT INTO past_names (workspace, name, generation, row_version, state) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (workspace, name) DO UPDATE SET generation = excluded.generation,"
            " row_version = excluded.row_version, state = excluded.state, deleted_at = now()",
            row.workspace, row.name, row.generation, row.row_version, bytes(raw(service_state(row))),
        )  # fmt: skip

    async def past(self, connection: Connection, workspace: str, name: str) -> tuple[int, int]:
        """(generation, row_version) at which a service of this name ended; zeros where there was none."""
        row = await connection.fetchrow(
            "SELECT generation, row_version FROM past_names WHERE workspace = $1 AND name = $2", workspace, name
        )
        return (row["generation"], row["row_version"]) if row else (0, 0)

    async def tell(self, connection: Connection, row: ServiceRow, verb: str, cause: Cause) -> Fact:
        """Tells a service's newest state."""
        return await tell(
            connection, self.database, entity="service", verb=verb, key=row.name, generation=row.generation,
            row_version=row.row_version, state=service_state(row), cause=cause, workspace=row.workspace,
            clock=self._clock,
        )  # fmt: skip

    async def add_revision(self, connection: Connection, row: RevisionRow) -> None:
        """Writes a new revision."""
        await connection.execute(
            "INSERT INTO revisions (workspace, name, number, state, data) VALUES ($1, $2, $3, $4, $5)",
            row.workspace, row.name, row.number, row.state, _revision.encode(row),
        )  # fmt: skip

    async def revision_state(self, connection: Connection, row: RevisionRow, state: str) -> None:
        """Moves a revision on; what it runs never changes. Raises Stale where it is in another state by now."""
        moved = msgspec.structs.replace(row, state=state)
        before = await connection.fetchrow(
            "UPDATE revisions r SET state = $4, data = $5"
            " FROM revisions b WHERE r.workspace = $1 AND r.name = $2 AND r.number = $3 AND r.state = $6"
            " AND (b.workspace, b.name, b.number, b.data) = (r.workspace, r.name, r.number, r.data)"
            " RETURNING b.data",
            row.workspace, row.name, row.number, state, _revision.encode(moved), row.state,
        )  # fmt: skip
        if (kept := _revision.kept(one(before)["data"], moved)) is not None:
            await connection.execute(
                "UPDATE revisions SET data = $4 WHERE workspace = $1 AND name = $2 AND number = $3",
                row.workspace, row.name, row.number, kept,
            )  # fmt: skip

    async def pin(self, connection: Connection, workspace: str, name: str, spec: RevisionSpec) -> None:
        """Keeps what a revision's sources were found to be; the guard is that of the service, written with it."""
        query = "SELECT data FROM revisions WHERE workspace = $1 AND name = $2 AND number = $3 FOR UPDATE"
        before = await connection.fetchval(query, workspace, name, spec.number)
        row = _revision.decode(before)
        pinned = msgspec.structs.replace(row, spec=msgspec.structs.replace(row.spec, sources=spec.sources))
        await connection.execute(
            "UPDATE revisions SET data = $4 WHERE workspace = $1 AND name = $2 AND number = $3",
            workspace, name, spec.number, _revision.kept(before, pinned) or _revision.encode(pinned),
        )  # fmt: skip

    async def give_up(self, connection: Connection, workspace: str, name: str, number: int) -> None:
        """Has a revision that was being rolled out be `reverted`, by the steps of its table. Raises Stale."""
        revision = await self.revision(workspace, name, number, connection)
        for state in steps_to(revision.state, "reverted") if revision is not None else ():
            assert revision is not None
            await self.revision_state(connection, revision, state)
            revision = msgspec.structs.replace(revision, state=state)

    async def revisions(self, workspace: str, name: str) -> list[RevisionRow]:
        """All revisions, oldest first."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM revisions WHERE workspace = $1 AND name = $2 ORDER BY number", workspace, name
            )
        return [_revision.decode(row["data"]) for row in rows]

    async def revision(
        self, workspace: str, name: str, number: int, connection: Connection | None = None
    ) -> RevisionRow | None:
        """One revision; with a connection: as its transaction sees it."""
        query = "SELECT data FROM revisions WHERE workspace = $1 AND name = $2 AND number = $3"
        if connection is not None:
            data = await connection.fetchval(query, workspace, name, number)
        else:
            async with self.database.connection() as reader:
                data = await reader.fetchval(query, workspace, name, number)
        return None if data is None else _revision.decode(data)

    async def failed_replicas(self, workspace: str, name: str) -> list[ReplicaState]:
        """Replicas that ended by failing, newest first, as far as they are among the 200 that ended last."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM projection WHERE entity = 'replica' AND workspace = $1 AND key = $2 AND final"
                " ORDER BY seen_at DESC LIMIT 200",
                workspace, name,
            )  # fmt: skip
        found = [_replica.decode(row["data"]) for row in rows]
        return [replica for replica in found if replica.state == "failed"]

    async def code_in_use(self) -> set[str]:
        """Digests of uploaded archives that some revision names."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT data FROM revisions")
        return {m.code_digest for row in rows for m in _revision.decode(row["data"]).spec.mounts if m.code_digest}

    async def facts(self) -> list[Fact]:
        """The newest fact of every service, deleted ones of the last 30 days too, for readers that rebuild."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT data FROM services ORDER BY workspace, name")
            past = await connection.fetch(
                "SELECT * FROM past_names p WHERE NOT EXISTS"
                " (SELECT 1 FROM services s WHERE s.workspace = p.workspace AND s.name = p.name)"
            )
        found = [_service.decode(row["data"]) for row in rows]
        living = [
            self._listed("status_changed", row.workspace, row.name, row.generation, row.row_version, row.updated_at,
                         raw(service_state(row)))
            for row in found
        ]  # fmt: skip
        return living + [
            self._listed("deleted", p["workspace"], p["name"], p["generation"], p["row_version"], p["deleted_at"],
                         msgspec.Raw(p["state"]))
            for p in past
        ]  # fmt: skip

    def _listed(
        self, verb: str, workspace: str, name: str, generation: int, row_version: int, at: datetime, data: msgspec.Raw
    ) -> Fact:
        return Fact(
            id=uuid7(), entity="service", verb=verb, workspace=workspace, key=name, epoch=self.database.epoch,
            generation=generation, row_version=row_version, at=at, cause=Cause(actor="control", reason="Listed"),
            data=data,
        )  # fmt: skip

    async def prune(self, idempotency_keep_h: float) -> None:
        """Forgets old answers, old revisions, and names long gone (readers forget them after 8 days)."""
        async with self.database.connection() as connection:
            await connection.execute(
                "DELETE FROM idempotency WHERE at < now() - make_interval(secs => $1)", idempotency_keep_h * 3600
            )
            rows = [_service.decode(row["data"]) for row in await connection.fetch("SELECT data FROM services")]
            in_use = [(row, row.revision.number) for row in rows]
            in_use += [(row, row.rollout.stable.number) for row in rows if row.rollout is not None]
            await connection.execute(
                "DELETE FROM revisions r USING (SELECT workspace, name, max(number) AS newest FROM revisions"
                " GROUP BY workspace, name) n WHERE r.workspace = n.workspace AND r.name = n.name"
                " AND r.number <= n.newest - $1 AND r.state IN ('superseded', 'failed', 'reverted') AND"
                " (r.workspace, r.name, r.number) NOT IN (SELECT * FROM unnest($2::text[], $3::text[], $4::int[]))",
                KEEP_REVISIONS, [row.workspace for row, _ in in_use], [row.name for row, _ in in_use],
                [number for _, number in in_use],
            )  # fmt: skip
            await connection.execute("DELETE FROM past_names WHERE deleted_at < now() - interval '30 days'")


def _mirrors_to(row: ServiceRow) -> list[str]:
    return list(row.mirroring.targets) if row.mirroring is not None else []
