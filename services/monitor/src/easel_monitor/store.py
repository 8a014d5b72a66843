"""The monitor's tables: minutes of metrics, counts of canaries, webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec

from easel_contracts.errors import AlreadyExists, NotFound
from easel_kit.audit import record
from easel_kit.db import Connection, Database, guarded
from easel_kit.grpc import Caller
from easel_monitor.decide.cell import Cell
from easel_monitor.inventory import Key
from easel_monitor.model import ArmSecond, Webhook

_cells = msgspec.msgpack.Decoder(list[Cell])
_bins = msgspec.msgpack.Decoder(dict[int, int])

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


class ArmSeconds:
    """What the arms of canaries answered, a row per canary, second and arm."""

    def __init__(self, database: Database, workspace: str) -> None:
        self._database, self._workspace = database, workspace

    async def save(self, seconds: Iterable[ArmSecond]) -> None:
        """Writes seconds that are over; one that is there already stays as it is. As with the minutes, what the
        database loses with its last moments is not worth a wait for the disk."""
        rows = [
            (self._workspace, s.subject, s.unix_s, s.arm, s.requests, s.errors, msgspec.msgpack.encode(s.bins))
            for s in seconds
        ]
        async with self._database.transaction() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.executemany(
                "INSERT INTO arm_seconds (workspace, subject, unix_s, arm, requests, errors, bins)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                rows,
            )

    async def read(self, subject: str, after_unix_s: int, most: int) -> list[ArmSecond]:
        """The first rows of a subject after a second, by time."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT subject, unix_s, arm, requests, errors, bins FROM arm_seconds"
                " WHERE workspace = $1 AND subject = $2 AND unix_s > $3 ORDER BY unix_s, arm LIMIT $4",
                self._workspace, subject, after_unix_s, most,
            )  # fmt: skip
        return [ArmSecond(**{**dict(row), "bins": _bins.decode(row["bins"])}) for row in rows]

    async def newest(self) -> int:
        """The last second of all that is written; 0: none is."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval("SELECT coalesce(max(unix_s), 0) FROM arm_seconds"))

    async def prune(self, before_s: int) -> None:
        """Forgets older seconds."""
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM arm_seconds WHERE unix_s < $1", before_s)


class Webhooks:
    """Subscriptions by HTTP."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, webhook: Webhook, idempotency_key: str, caller: Caller) -> Webhook:
        """Stores it; with an idempotency key that was used before, gives what was made then.

        Raises AlreadyExists when that was another request.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"INSERT INTO webhook ({_WEBHOOK}, idempotency_key, created_by)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
                " ON CONFLICT (workspace, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING"
                f" RETURNING {_WEBHOOK}",
                *msgspec.structs.astuple(webhook), idempotency_key or None, caller.actor,
            )  # fmt: skip
            if row is not None:
                await _record(connection, caller, "Events.CreateWebhook", None, webhook)
            else:
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

    async def delete(self, workspace: str, identity: str, caller: Caller) -> None:
        """Removes it; raises NotFound."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                f"DELETE FROM webhook WHERE workspace = $1 AND id = $2 RETURNING {_WEBHOOK}", workspace, identity
            )
            if row is not None:
                await _record(connection, caller, "Events.DeleteWebhook", _webhook(row), None)
        if row is None:
            raise NotFound("NO_SUCH_WEBHOOK", f"there is no webhook {identity}", "`easel webhook ls` lists all")

    async def token_given(self, workspace: str, caller: Caller) -> None:
        """Takes down that somebody got the outsiders' credentials."""
        async with self._database.transaction() as connection:
            given = {"subject": f"easel.fact.{workspace}.>"}
            await record(connection, caller, workspace, "Events.CreateToken", "events/token", None, given)

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


async def _record(
    connection: Connection, caller: Caller, action: str, before: Webhook | None, after: Webhook | None
) -> None:
    """The audit of a webhook, in the transaction that makes or removes it; never its secret."""
    one = before or after
    assert one is not None
    was, now = _shown(before) if before else None, _shown(after) if after else None
    await record(connection, caller, one.workspace, action, f"webhook/{one.id}", was, now)


def _shown(webhook: Webhook) -> dict[str, Any]:
    """What the audit keeps: a URL's user, path and query may be secrets of the receiver's, so only its origin."""
    url = urlsplit(webhook.url)
    return {
        "origin": f"{url.scheme}://{url.netloc.rpartition('@')[2]}",
        "entity": webhook.entity,
        "key": webhook.key,
        "delivered_sequence": webhook.delivered_sequence,
    }


def _webhook(row: asyncpg.Record) -> Webhook:
    return Webhook(**dict(row))
