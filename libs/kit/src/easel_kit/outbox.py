"""Facts told in the same transaction as the write they speak of, and the relay that publishes them.

Mechanism: `tell` inserts the encoded fact; a trigger notifies; the one relay that holds the schema's advisory lock
publishes rows in order per key with `Nats-Msg-Id` (JetStream drops repeats) and deletes what is acknowledged.
Rows are selected by presence, not by a cursor, so a transaction that commits late is never skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import groupby

import asyncpg
import msgspec

from easel_contracts import facts
from easel_contracts.errors import Refused
from easel_contracts.ids import uuid7
from easel_kit.bus import Bus, BusError
from easel_kit.clock import Clock, SystemClock
from easel_kit.db import UNREACHABLE, Connection, Database
from easel_kit.telemetry import current_traceparent, get_logger

MAX_ROWS = 500_000
"""Above this, mutations are refused: the bus has been away for too long."""
BATCH = 500
LOCK_SPACE = 0x0B0C

log = get_logger("outbox")


async def tell(
    connection: Connection,
    database: Database,
    *,
    entity: facts.Entity,
    verb: str,
    key: str,
    generation: int,
    row_version: int,
    state: facts.EntityState,
    cause: facts.Cause,
    workspace: str = "default",
    clock: Clock | None = None,
) -> facts.Fact:
    """Puts a fact into the outbox, in the caller's transaction. `verb` must stand in facts.VERBS."""
    if verb not in facts.VERBS[entity]:
        raise ValueError(f"{entity}.{verb} is not a fact; facts.VERBS lists them")
    if cause.traceparent is None and (traceparent := current_traceparent()):
        cause = msgspec.structs.replace(cause, traceparent=traceparent)
    fact = facts.Fact(
        id=uuid7(), entity=entity, verb=verb, workspace=workspace, key=key, epoch=database.epoch,
        generation=generation, row_version=row_version, at=(clock or SystemClock()).now(), cause=cause,
        data=facts.raw(state),
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO outbox (msg_id, subject, key, payload, traceparent) VALUES ($1, $2, $3, $4, $5)",
        fact.id, fact.subject, f"{workspace}/{entity}/{key}", facts.encode(fact), cause.traceparent,
    )  # fmt: skip
    return fact


async def refuse_when_full(connection: Connection) -> None:
    """Raises Refused while the outbox is at its cap; called before a mutation is admitted."""
    rows = await connection.fetchval("SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT $1) AS capped", MAX_ROWS)
    if rows >= MAX_ROWS:
        raise Refused(
            "OUTBOX_FULL",
            f"{rows} facts wait to be published: the bus does not take them, so no change is accepted now",
            "see that NATS is up and its disk is not full; `easel doctor` tells",
        )


class Relay:
    """Publishes a schema's outbox. Any number may run; the holder of the advisory lock works."""

    def __init__(self, database: Database, bus: Bus, clock: Clock) -> None:
        self._database, self._bus, self._clock = database, bus, clock
        self._woken = asyncio.Event()
        self.lag = 0
        """Rows seen waiting at the last look."""
        self.oldest_s = 0.0
        """Age in seconds of the oldest row then."""

    async def run(self) -> None:
        """Relays for ever; database and bus may come and go."""
        while True:
            try:
                await self._hold_and_drain()
            except (*UNREACHABLE, asyncpg.PostgresError, BusError, TimeoutError) as error:
                log.warning("outbox relay waits", schema=self._database.schema, error=repr(error))
                await self._clock.sleep(0.5)

    async def _hold_and_drain(self) -> None:
        connection = await self._database.dedicated()
        try:
            schema = self._database.schema
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", LOCK_SPACE, schema):
                await self._clock.sleep(2)
            await connection.add_listener(f"outbox_{schema}", lambda *_: self._woken.set())
            connection.add_termination_listener(lambda *_: self._woken.set())
            while not connection.is_closed():
                self._woken.clear()
                while await self._drain(connection):
                    pass
                await self._wait(5.0)
        finally:
            await connection.close(timeout=1)

    async def _wait(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(longest_s):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _drain(self, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        rows = await connection.fetch(
            "SELECT id, msg_id, subject, key, payload, traceparent,"
            " extract(epoch FROM clock_timestamp() - created_at)::float8 AS age_s"
            " FROM outbox ORDER BY key, id LIMIT $1",
            BATCH,
        )
        self.lag, self.oldest_s = len(rows), max((r["age_s"] for r in rows), default=0.0)
        if not rows:
            return False
        groups = [list(group) for _, group in groupby(rows, key=lambda r: r["key"])]
        sent = await asyncio.gather(*(self._publish(group) for group in groups))
        ids = [row_id for done, _ in sent for row_id in done]
        await connection.execute("DELETE FROM outbox WHERE id = ANY($1::bigint[])", ids)
        for _, error in sent:
            if error:
                raise error
        return True

    async def _publish(self, rows: Iterable[asyncpg.Record]) -> tuple[list[int], Exception | None]:
        """One key's rows in order, stopping at the first that is not acknowledged."""
        done: list[int] = []
        for row in rows:
            try:
                await self._bus.publish_fact(row["subject"], row["payload"], row["msg_id"], row["traceparent"])
            except (BusError, TimeoutError) as error:
                return done, error
            done.append(row["id"])
        return done, None
