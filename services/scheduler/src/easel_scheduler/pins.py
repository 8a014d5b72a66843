"""Rows of what revisions run: written with the report that found it, never changed, gone with the service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from easel_kit.db import Connection, Database
from easel_scheduler.decide.pins import Kept, Pinned
from easel_scheduler.decide.world import Replica


class Pins:
    """Pins of one workspace."""

    def __init__(self, database: Database, workspace: str) -> None:
        self._database, self._workspace = database, workspace

    async def of(self, r: Replica) -> dict[str, str]:
        """What is known of the replica's revision: path of a source → digest or commit."""
        async with self._database.connection() as connection:
            return {path: kept.value for path, kept in (await self._kept(connection, r)).items()}

    async def keep(self, connection: Connection, r: Replica, now: datetime) -> dict[str, Kept]:
        """Adds what the replica found and nobody before it; what is known of its revision then."""
        found = sorted(r.pins.items())
        await connection.execute(
            "INSERT INTO pins (workspace, service_uid, revision, service, replica, at, source, value)"
            " SELECT $1, $2, $3, $4, $5, $6, source, value"
            " FROM unnest($7::text[], $8::text[]) AS found (source, value) ON CONFLICT DO NOTHING",
            self._workspace, r.service_uid, r.spec.number, r.service, r.id, now, [s for s, _ in found],
            [v for _, v in found],
        )  # fmt: skip
        return await self._kept(connection, r)

    async def revisions(self) -> list[Pinned]:
        """Revisions of which something is kept."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT DISTINCT service, service_uid, revision FROM pins WHERE workspace = $1", self._workspace
            )
        return [Pinned(service=x["service"], service_uid=x["service_uid"], revision=x["revision"]) for x in rows]

    async def forget(self, pinned: Sequence[Pinned]) -> None:
        """Drops what is kept of these revisions, except where a replica lives still."""
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM pins p USING unnest($2::text[], $3::int[]) AS gone (service_uid, revision)"
                " WHERE p.workspace = $1 AND p.service_uid = gone.service_uid AND p.revision = gone.revision"
                " AND NOT EXISTS (SELECT FROM replica r WHERE r.workspace = $1 AND r.service = p.service AND r.live"
                "  AND r.data ->> 'service_uid' = p.service_uid"
                "  AND (r.data -> 'spec' ->> 'number')::int = p.revision)",
                self._workspace, [p.service_uid for p in pinned], [p.revision for p in pinned],
            )  # fmt: skip

    async def _kept(self, connection: Connection, r: Replica) -> dict[str, Kept]:
        rows = await connection.fetch(
            "SELECT source, value, replica, at FROM pins"
            " WHERE workspace = $1 AND service_uid = $2 AND revision = $3 ORDER BY source",
            self._workspace, r.service_uid, r.spec.number,
        )  # fmt: skip
        return {x["source"]: Kept(value=x["value"], replica=x["replica"], at=x["at"]) for x in rows}
