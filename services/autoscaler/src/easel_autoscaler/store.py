"""The autoscaler's rows: the decision in force per service, and the journal. Decides nothing.

A decision, its journal row and its fact go out in one transaction; the write is guarded by row_version and by the
lease's fencing token, so that of two copies that both believe to be in charge only one is heard.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from easel_autoscaler.decide.decision import Current, Decision
from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, ScaleInput, ScaleState, ServiceState
from easel_contracts.ids import uuid7
from easel_kit.clock import Clock
from easel_kit.db import Connection, Database, one
from easel_kit.outbox import tell

KEEP_ROWS = 1000
"""Journal rows kept per service."""
KEEP_DAYS = 30
KEEP_DELETED_DAYS = 7
"""A deleted service's row; less than the 8 days for which the kit remembers that it was deleted."""

_INPUTS = msgspec.json.Decoder(tuple[ScaleInput, ...])
_DECISION = "number, generation, before, wanted, reason, message, inputs, decided_at"


class Decided(Struct, frozen=True, kw_only=True):
    """A decision as stored."""

    number: int
    generation: int
    before: int
    wanted: int
    reason: str
    message: str
    inputs: tuple[ScaleInput, ...]
    decided_at: datetime


class Store:
    """Reads and writes of one workspace."""

    def __init__(self, database: Database, clock: Clock, workspace: str) -> None:
        self._database, self._clock, self._workspace = database, clock, workspace

    async def current(self, service: str) -> Current | None:
        """The decision in force; None before the first."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT uid, generation, number, wanted, row_version FROM scale WHERE workspace = $1 AND service = $2",
                self._workspace, service,
            )  # fmt: skip
        return Current(**dict(row)) if row else None

    async def write(
        self, service: ServiceState, current: Current | None, decision: Decision, lease_token: int
    ) -> Current:
        """Stores and tells a decision; raises Stale when another was stored since `current` was read."""
        now = self._clock.now()
        number = current.number + 1 if current else 1
        shared = (
            self._workspace, service.name, service.uid, service.generation, number, decision.before, decision.wanted,
            decision.reason, decision.message, msgspec.json.encode(decision.inputs).decode(), now,
        )  # fmt: skip
        async with self._database.transaction() as connection:
            row_version = await _write_row(connection, shared, current, lease_token)
            await connection.execute(
                "INSERT INTO decisions (workspace, service, uid, generation, number, before, wanted, reason, message,"
                " inputs, decided_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
                *shared,
            )
            await connection.execute(
                "DELETE FROM decisions WHERE workspace = $1 AND service = $2 AND number <= $3",
                self._workspace, service.name, number - KEEP_ROWS,
            )  # fmt: skip
            await tell(
                connection, self._database, entity="scale", verb="decided", key=service.name,
                generation=service.generation, row_version=row_version, workspace=self._workspace,
                clock=self._clock, cause=_cause(decision.reason, decision.message),
                state=_state(service.name, service.generation, number, decision),
            )  # fmt: skip
        return Current(uid=service.uid, generation=service.generation, number=number, wanted=decision.wanted,
                       row_version=row_version)  # fmt: skip

    async def history(self, service: str, uid: str, limit: int) -> list[Decided]:
        """The newest decisions first, of this service and not of an earlier one with its name."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {_DECISION} FROM decisions WHERE workspace = $1 AND service = $2 AND uid = $3"
                " ORDER BY number DESC LIMIT $4",
                self._workspace, service, uid, limit,
            )  # fmt: skip
        return [_decided(row) for row in rows]

    async def facts(self) -> list[Fact]:
        """The newest fact of every service, made from the rows; for readers that rebuild their projections."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(f"SELECT workspace, service, row_version, {_DECISION} FROM scale")
        return [self._fact(row) for row in rows]

    async def prune(self) -> None:
        """Drops journal rows that are too old, and services that were deleted long ago."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "DELETE FROM decisions WHERE decided_at < now() - make_interval(days => $1)", KEEP_DAYS
            )
            await connection.execute(
                """
                DELETE FROM scale USING projection AS gone WHERE gone.entity = 'service' AND gone.final
                    AND gone.workspace = scale.workspace AND gone.id = scale.service
                    AND gone.seen_at < now() - make_interval(days => $1)
                """,
                KEEP_DELETED_DAYS,
            )

    def _fact(self, row: Any) -> Fact:
        decided = _decided(row)
        return Fact(
            id=uuid7(), entity="scale", verb="decided", workspace=row["workspace"], key=row["service"],
            epoch=self._database.epoch, generation=decided.generation, row_version=row["row_version"],
            at=decided.decided_at, cause=_cause(decided.reason, decided.message),
            data=facts.raw(_state(row["service"], decided.generation, decided.number, decided)),
        )  # fmt: skip


async def _write_row(
    connection: Connection, shared: tuple[object, ...], current: Current | None, lease_token: int
) -> int:
    if current is None:
        row = await connection.fetchrow(
            """
            INSERT INTO scale (workspace, service, uid, generation, number, before, wanted, reason, message, inputs,
                decided_at, lease_token, row_version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, nextval('scale_version'))
            ON CONFLICT DO NOTHING RETURNING row_version
            """,
            *shared, lease_token,
        )  # fmt: skip
    else:
        row = await connection.fetchrow(
            """
            UPDATE scale SET uid = $3, generation = $4, number = $5, before = $6, wanted = $7, reason = $8,
                message = $9, inputs = $10, decided_at = $11, lease_token = $12,
                row_version = nextval('scale_version')
            WHERE workspace = $1 AND service = $2 AND row_version = $13 AND lease_token <= $12
            RETURNING row_version
            """,
            *shared, lease_token, current.row_version,
        )  # fmt: skip
    return int(one(row)["row_version"])


def _decided(row: Any) -> Decided:
    return Decided(
        number=row["number"], generation=row["generation"], before=row["before"], wanted=row["wanted"],
        reason=row["reason"], message=row["message"], inputs=_INPUTS.decode(row["inputs"]),
        decided_at=row["decided_at"],
    )  # fmt: skip


def _state(service: str, generation: int, number: int, decision: Decision | Decided) -> ScaleState:
    return ScaleState(
        service=service, generation=generation, number=number, before=decision.before, wanted=decision.wanted,
        reason=decision.reason, message=decision.message, inputs=decision.inputs,
    )  # fmt: skip


def _cause(reason: str, message: str) -> Cause:
    return Cause(actor="autoscaler", reason=reason, message=message)
