"""The monitor's tables: minutes of metrics, webhooks."""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
import msgspec

from easel_contracts.errors import AlreadyExists, NotFound
from easel_kit.db import Database, guarded
from easel_monitor.decide.cell import Cell
from easel_monitor.inventory import Key
from easel_monitor.model import Webhook

_cells = msgspec.msgpack.Decoder(list[Cell])

_WEBHOOK = "id, workspace, url, entity, key, secret_sealed, delivered_sequence, failures, last_error, lost, row_version"


class Rollups:
    """The last hour, a row per service and minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, minutes: Iterable[tuple[int, Key, list[Cell]]], forget_before_s: int) -> None:
        """Writes whole minutes and drops what is older than the hour, in one transaction.

        A minute that is lost with the database's last moments is not worth a wait for the disk.
        """
        rows = [(at, key[0], key[1], msgspec.msgpack.encode(cells)) for at, key, cells in minutes]
        async with self._database.transaction() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.executemany(
                "INSERT INTO metric_rollup (minute_s, workspace, service, cells) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (minute_s, workspace, service) DO UPDATE SET cells = excluded.cells",
                rows,
            )
            await connection.execute("DELETE FROM metric_rollup WHERE minute_s < $1", forget_before_s)

    async def load(self, from_s: int) -> list[tuple[Key, list[Cell]]]:
        """Every service's cells from a time on."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT workspace, service, cells FROM metric_rollup WHERE minute_s >= $1 ORDER BY minute_s", from_s
            )
        return [((row["workspace"], row["service"]), _cells.decode(row["cells"])) for row in rows]


class Webhooks:
    """Subscriptions by HTTP."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, webhook: Webhook, idempotency_key: str, created_by: str) -> Webhook:
        """Stores it; with an idempotency key that was used before, gives what was made then.

        Raises AlreadyExists when that was another request.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"INSERT INTO webhook ({_WEBHOOK}, idempotency_key, created_by)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
                " ON CONFLICT (workspace, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
                f" RETURNING {_WEBHOOK}",
                *msgspec.structs.astuple(webhook), idempotency_key or None, created_by,
            )  # fmt: skip
            if row is None:
                row = await connection.fetchrow(
                    f"SELECT {_WEBHOOK} FROM webhook WHERE workspace = $1 AND idempotency_key = $2",
                    webhook.workspace, idempotency_key,
                )  # fmt: skip
        if row is None:
            raise AlreadyExists("IDEMPOTENCY_KEY_USED", "the webhook made with this idempotency key was deleted since")
        found = _webhook(row)
        if (found.url, found.entity, found.key) != (webhook.url, webhook.entity, webhook.key):
            raise AlreadyExists(
                "IDEMPOTENCY_KEY_USED", f"this idempotency key made webhook {found.id} with other content",
                "use a new key for a new request",
            )  # fmt: skip
        return found

    async def count(self, workspace: str) -> int:
        """How many a workspace has."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM webhook WHERE workspace = $1", workspace))

    async def all(self, workspace: str | None = None) -> list[Webhook]:
        """Of one workspace, or every one; oldest first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_WEBHOOK} FROM webhook WHERE $1::text IS NULL OR workspace = $1 ORDER BY created_at, id",
                workspace,
            )
        return [_webhook(row) for row in rows]

    async def get(self, identity: str) -> Webhook | None:
        """One by its id."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(f"SELECT {_WEBHOOK} FROM webhook WHERE id = $1", identity)
        return None if row is None else _webhook(row)

    async def delete(self, workspace: str, identity: str) -> None:
        """Removes it; raises NotFound."""
        async with self._database.transaction() as connection:
            status = await connection.execute(
                "DELETE FROM webhook WHERE workspace = $1 AND id = $2", workspace, identity
            )
        if str(status).endswith(" 0"):
            raise NotFound("NO_SUCH_WEBHOOK", f"there is no webhook {identity}", "`easel webhook ls` lists all")

    async def progress(self, before: Webhook, **changes: int | str) -> Webhook:
        """Takes down how far it is; raises Stale when somebody else did, or it was deleted."""
        after = msgspec.structs.replace(before, **changes, row_version=before.row_version + 1)
        async with self._database.transaction() as connection:
            guarded(
                await connection.execute(
                    "UPDATE webhook SET delivered_sequence = $3, failures = $4, last_error = $5, lost = $6,"
                    " row_version = row_version + 1 WHERE id = $1 AND row_version = $2",
                    before.id, before.row_version, after.delivered_sequence, after.failures, after.last_error,
                    after.lost,
                )
            )  # fmt: skip
        return after


def _webhook(row: asyncpg.Record) -> Webhook:
    return Webhook(**dict(row))
