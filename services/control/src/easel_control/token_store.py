"""The tokens beside `default` in control's schema, sealed: reading and writing those of services and groups.

Each write belongs into the transaction that locked the owner's row, so an owner's tokens change one after the other.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, Literal

from easel_contracts.errors import FieldError
from easel_control.decide.tokens import Token, Tokens, good, value_errors
from easel_control.vault import Vault
from easel_kit.clock import Clock
from easel_kit.db import Connection, Database

Kind = Literal["service", "group"]


class TokenStore:
    """Reads and writes."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self.database, self._vault, self._clock = database, vault, clock

    async def of(self, connection: Connection, kind: Kind, workspace: str, owner: str) -> Tokens:
        """An owner's tokens but `default`, expired ones too."""
        return (await self.of_some(connection, kind, workspace, [owner])).get(owner, ())

    async def of_some(self, connection: Connection, kind: Kind, workspace: str, owners: list[str]) -> dict[str, Tokens]:
        """The same of several, by owner; of all when none is named."""
        rows = await connection.fetch(
            "SELECT * FROM tokens WHERE workspace = $1 AND kind = $2 AND ($3::text[] = '{}' OR owner = ANY($3))",
            workspace, kind, owners,
        )  # fmt: skip
        found: dict[str, Tokens] = defaultdict(tuple)
        for row in rows:
            found[row["owner"]] += (self._token(row),)
        return found

    async def replace(
        self, connection: Connection, kind: Kind, workspace: str, owner: str, before: Tokens, after: Tokens
    ) -> None:
        """Writes what differs between two states of an owner's tokens but `default`."""
        gone = [t.name for t in before if t not in after]
        await connection.execute(
            "DELETE FROM tokens WHERE workspace = $1 AND kind = $2 AND owner = $3 AND name = ANY($4)",
            workspace, kind, owner, gone,
        )  # fmt: skip
        await connection.executemany(
            "INSERT INTO tokens (workspace, kind, owner, name, sealed, expires_at, rate_limit_qps, rotated, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            [
                (workspace, kind, owner, t.name,
                 self._vault.seal(_purpose(workspace, kind, owner, t.name), t.value.encode()), t.expires_at,
                 t.rate_limit_qps, t.rotated, t.created_at)
                for t in after if t not in before
            ],
        )  # fmt: skip

    async def refused(self, kind: Kind, workspace: str, owner: str, value: str) -> tuple[FieldError, ...]:
        """What stands against a value of `default` that comes with a service.json."""
        async with self.database.connection() as connection:
            others = await self.of(connection, kind, workspace, owner)
        return tuple(value_errors(good(others, self._clock.now()), value, "token"))

    async def expiring(self, workspace: str, before: datetime) -> list[tuple[Kind, str]]:
        """(kind, owner) of tokens that expire before a time, or have expired."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT DISTINCT kind, owner FROM tokens WHERE workspace = $1 AND expires_at < $2", workspace, before
            )
        return [(row["kind"], row["owner"]) for row in rows]

    async def next_expiry(self, kind: Kind, workspace: str, owner: str) -> datetime | None:
        """When the next of an owner's tokens expires, or has; None: none does."""
        async with self.database.connection() as connection:
            found: datetime | None = await connection.fetchval(
                "SELECT min(expires_at) FROM tokens WHERE workspace = $1 AND kind = $2 AND owner = $3",
                workspace, kind, owner,
            )  # fmt: skip
        return found

    def _token(self, row: Any) -> Token:
        purpose = _purpose(row["workspace"], row["kind"], row["owner"], row["name"])
        return Token(
            name=row["name"], value=self._vault.open(purpose, row["sealed"]).decode(), expires_at=row["expires_at"],
            rate_limit_qps=row["rate_limit_qps"], rotated=row["rotated"], created_at=row["created_at"],
        )  # fmt: skip


def _purpose(workspace: str, kind: str, owner: str, name: str) -> str:
    return f"named-token/{workspace}/{kind}/{owner}/{name}"
