"""The router's rows: routes, drained replicas, known Envoys. Decides nothing.

A row and its fact go out in one transaction, guarded by the row version that was read and the lease's fencing token.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from msgspec import Struct

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact, RouteState, TrafficState
from easel_contracts.ids import uuid7
from easel_kit.clock import Clock
from easel_kit.db import Database, one
from easel_kit.outbox import tell

KEEP_DAYS = 9
"""Removed routes and drained replicas; longer than the stream keeps facts."""

_VERB = {"probed": "applied", "refused": "refused", "removed": "removed"}


class Stored(Struct, frozen=True, kw_only=True):
    """A route as stored."""

    state: RouteState
    row_version: int
    at: datetime


class Store:
    """Reads and writes of one workspace."""

    def __init__(self, database: Database, clock: Clock, workspace: str) -> None:
        self._database, self._clock, self._workspace = database, clock, workspace

    async def route(self, service: str) -> Stored | None:
        """The newest outcome; None: never routed."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM routes WHERE workspace = $1 AND service = $2", self._workspace, service
            )
        return _stored(row) if row else None

    async def routes(self) -> list[Stored]:
        """All outcomes, removed ones too."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT * FROM routes WHERE workspace = $1", self._workspace)
        return [_stored(row) for row in rows]

    async def write(self, state: RouteState, before: Stored | None, lease_token: int, cause: Cause) -> Stored:
        """Stores and tells an outcome; raises Stale when another was stored since `before` was read."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                _UPDATE if before else _INSERT, self._workspace, state.service, state.generation, state.state,
                state.version, list(state.replicas), list(state.draining), state.token_version, state.envoys,
                state.refused_reason, state.apply_ms, now, lease_token, state.holding, state.split_permille,
                *([before.row_version] if before else []),
            )  # fmt: skip
            version = int(one(row)["row_version"])
            await tell(
                connection, self._database, entity="route", verb=_VERB[state.state], key=state.service,
                generation=state.generation, row_version=version, state=state, cause=cause,
                workspace=self._workspace, clock=self._clock,
            )  # fmt: skip
        return Stored(state=state, row_version=version, at=now)

    async def drained(self, service: str, replica: str, generation: int, drain_number: int) -> bool:
        """Stores and tells once per drain that a replica has no request left; says whether it was new."""
        state = TrafficState(service=service, replica=replica, drain_number=drain_number)
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "INSERT INTO drained (workspace, replica, service, at, drain_number, row_version)"
                " VALUES ($1, $2, $3, $4, $5, nextval('route_version')) ON CONFLICT (workspace, replica) DO UPDATE"
                " SET at = excluded.at, drain_number = excluded.drain_number, row_version = excluded.row_version"
                " WHERE drained.drain_number < excluded.drain_number RETURNING row_version",
                self._workspace, replica, service, self._clock.now(), drain_number,
            )  # fmt: skip
            if row is None:
                return False
            await tell(
                connection, self._database, entity="traffic", verb="drained", key=service, generation=generation,
                row_version=row["row_version"], state=state, workspace=self._workspace, clock=self._clock,
                cause=Cause(actor="router", reason="InFlightZero", message=f"{replica} has no request left"),
            )  # fmt: skip
        return True

    async def is_drained(self, replica: str, drain_number: int) -> bool:
        """Whether it was told already, of this drain."""
        async with self._database.connection() as connection:
            found = await connection.fetchval(
                "SELECT 1 FROM drained WHERE workspace = $1 AND replica = $2 AND drain_number >= $3",
                self._workspace, replica, drain_number,
            )  # fmt: skip
        return found is not None

    async def route_facts(self) -> list[Fact]:
        """The newest fact of every route, for readers that rebuild."""
        return [
            self._fact("route", _VERB[s.state.state], s.state.service, s.state.generation, s.row_version, s.at, s.state)
            for s in await self.routes()
        ]

    async def traffic_facts(self) -> list[Fact]:
        """The fact of every drained replica."""
        async with self._database.connection() as connection:
            rows = await connection.fetch("SELECT * FROM drained WHERE workspace = $1", self._workspace)
        return [
            self._fact("traffic", "drained", r["service"], 0, r["row_version"], r["at"],
                       TrafficState(service=r["service"], replica=r["replica"], drain_number=r["drain_number"]))
            for r in rows
        ]  # fmt: skip

    def _fact(
        self, entity: facts.Entity, verb: str, key: str, generation: int, row_version: int, at: datetime,
        state: facts.EntityState,
    ) -> Fact:  # fmt: skip
        return Fact(
            id=uuid7(), entity=entity, verb=verb, workspace=self._workspace, key=key, epoch=self._database.epoch,
            generation=generation, row_version=row_version, at=at, data=facts.raw(state),
            cause=Cause(actor="router", reason="Listed"),
        )  # fmt: skip

    async def probe_secret(self) -> str:
        """The secret of the router's probes; made on first use."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO probe (secret) VALUES ($1) ON CONFLICT DO NOTHING", secrets.token_hex(24)
            )
            return str(await connection.fetchval("SELECT secret FROM probe"))

    async def envoy_seen(self, envoy: str, holder: str, *, connected: bool) -> None:
        """Remembers that an Envoy came or went."""
        async with self._database.connection() as connection:
            await connection.execute(
                "INSERT INTO envoys (id, holder, connected, seen_at) VALUES ($1, $2, $3, now()) ON CONFLICT (id)"
                " DO UPDATE SET holder = excluded.holder, connected = excluded.connected, seen_at = now()",
                envoy, holder, connected,
            )  # fmt: skip

    async def known_envoys(self, within_s: float) -> list[str]:
        """Envoys that are, or lately were, connected."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM envoys WHERE connected OR seen_at > now() - make_interval(secs => $1)", within_s
            )
        return [row["id"] for row in rows]

    async def prune(self, envoys: list[str], holder: str) -> None:
        """Drops what nobody can ask for any more; of Envoys, those that stayed away from this copy."""
        async with self._database.transaction() as connection:
            for table, extra in (("drained", ""), ("routes", " AND state = 'removed'")):
                await connection.execute(
                    f"DELETE FROM {table} WHERE at < now() - make_interval(days => $1){extra}", KEEP_DAYS
                )
            await connection.execute(
                "DELETE FROM envoys WHERE NOT id = ANY($1) AND holder = $2 OR seen_at < now() - interval '30 days'",
                envoys,
                holder,
            )


_INSERT = """
INSERT INTO routes (workspace, service, generation, state, version, replicas, draining, token_version, envoys,
    refused_reason, apply_ms, at, lease_token, holding, split_permille, row_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, nextval('route_version'))
ON CONFLICT DO NOTHING RETURNING row_version
"""

_UPDATE = """
UPDATE routes SET generation = $3, state = $4, version = $5, replicas = $6, draining = $7, token_version = $8,
    envoys = $9, refused_reason = $10, apply_ms = $11, at = $12, lease_token = $13,
    holding = $14, split_permille = $15, row_version = nextval('route_version')
WHERE workspace = $1 AND service = $2 AND row_version = $16 AND lease_token <= $13
RETURNING row_version
"""


def _stored(row: Any) -> Stored:
    state = RouteState(
        service=row["service"], generation=row["generation"], state=row["state"], version=row["version"],
        replicas=tuple(row["replicas"]), draining=tuple(row["draining"]), token_version=row["token_version"],
        holding=row["holding"], envoys=row["envoys"], refused_reason=row["refused_reason"], apply_ms=row["apply_ms"],
        split_permille=row["split_permille"],
    )  # fmt: skip
    return Stored(state=state, row_version=row["row_version"], at=row["at"])
