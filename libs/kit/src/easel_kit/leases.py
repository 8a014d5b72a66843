"""Leases: which copy of a process may act on a key. 64 hash shards per process kind, rows with a fencing token.

A copy takes free shards up to its fair share, renews them every RENEW_S and gives surplus back. A shard whose holder
has been silent for TTL_S may be taken; the token rises with each change of hands and goes into guarded writes and
agent commands, so that a holder who only believes to hold it is refused.

A copy is called `<place>/<start>`: the place (host and data directory) stays over restarts, the start is new each time,
so that a copy and its dead predecessor are never taken for one another.
"""

from __future__ import annotations

import hashlib

import asyncpg

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.telemetry import get_logger

SHARDS = 64
TTL_S = 10.0
RENEW_S = 3.0

log = get_logger("leases")


def shard_of(key: str) -> int:
    """The shard a key belongs to."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % SHARDS


class Leases:
    """This copy's shards."""

    def __init__(self, database: Database, holder: str, clock: Clock) -> None:
        self._database, self._holder, self._clock = database, holder, clock
        self._tokens: dict[int, int] = {}
        self._valid_until = 0.0

    def token_for(self, key: str) -> int | None:
        """The fencing token if this copy may act on the key now, else None."""
        if self._clock.monotonic() >= self._valid_until:
            return None
        return self._tokens.get(shard_of(key))

    def held(self) -> int:
        """Shards held now."""
        return len(self._tokens) if self._clock.monotonic() < self._valid_until else 0

    async def run(self) -> None:
        """Takes and renews for ever; while the database is away, leases run out and nothing is acted on."""
        while True:
            try:
                await self.renew()
            except (*UNREACHABLE, asyncpg.PostgresError, TimeoutError) as error:
                log.warning("leases not renewed", error=repr(error))
            await self._clock.sleep(RENEW_S if self._tokens else 0.5)

    async def renew(self) -> None:
        """One round: announce this copy, renew what is held, give surplus back, take what is free."""
        started = self._clock.monotonic()
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO members (id, seen_at) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET seen_at = now()",
                self._holder,
            )
            copies = await connection.fetchval(
                "SELECT count(*) FROM members WHERE seen_at > now() - make_interval(secs => $1)", TTL_S
            )
            share = -(-SHARDS // max(copies, 1))
            await connection.execute(
                "UPDATE leases SET holder = NULL, expires_at = '-infinity' WHERE shard IN"
                " (SELECT shard FROM leases WHERE holder = $1 ORDER BY shard OFFSET $2)",
                self._holder, share,
            )  # fmt: skip
            await connection.execute(
                """
                UPDATE leases SET expires_at = now() + make_interval(secs => $3),
                    token = CASE WHEN holder = $1 THEN token ELSE token + 1 END, holder = $1
                WHERE shard IN (
                    SELECT shard FROM leases WHERE holder = $1 OR expires_at < now()
                    ORDER BY (holder IS NOT DISTINCT FROM $1) DESC, shard LIMIT $2 FOR UPDATE SKIP LOCKED)
                """,
                self._holder, share, TTL_S,
            )  # fmt: skip
            rows = await connection.fetch("SELECT shard, token FROM leases WHERE holder = $1", self._holder)
        self._tokens = {row["shard"]: row["token"] for row in rows}
        self._valid_until = started + TTL_S - 1.0

    async def succeed(self, place: str) -> int:
        """Takes away at once what dead predecessors at `place` hold; says how many shards.

        Only for a caller who knows that they are dead. Tokens rise when the shards are taken again, so that a dead
        copy's last commands, still on their way, are refused.
        """
        async with self._database.transaction() as connection:
            status = await connection.execute(
                "UPDATE leases SET holder = NULL, expires_at = '-infinity'"
                " WHERE starts_with(holder, $1 || '/') AND holder <> $2",
                place, self._holder,
            )  # fmt: skip
            await connection.execute(
                "DELETE FROM members WHERE starts_with(id, $1 || '/') AND id <> $2", place, self._holder
            )
        return int(str(status).rsplit(" ", 1)[-1])

    async def release(self) -> None:
        """Gives everything back, so that another copy need not wait for the TTL."""
        self._tokens = {}
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE leases SET holder = NULL, expires_at = '-infinity' WHERE holder = $1", self._holder
            )
            await connection.execute("DELETE FROM members WHERE id = $1", self._holder)
            await connection.execute("DELETE FROM members WHERE seen_at < now() - interval '1 day'")
