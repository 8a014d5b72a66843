"""What other owners' facts said last, kept in the reader's own schema: idempotent, order-proof, rebuildable."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from easel_contracts import facts, states
from easel_contracts.facts import EntityState, Fact
from easel_kit.db import Connection, Database

T = TypeVar("T", bound=EntityState)

KEEP_FINAL_DAYS = 8
"""Ended entities are remembered longer than the stream keeps facts (7 days), so that no old fact revives them."""


class Projection(Generic[T]):
    """The newest state of every entity of one kind."""

    def __init__(self, database: Database, entity: facts.Entity, kind: type[T]) -> None:
        self._database, self._entity, self._kind = database, entity, kind
        self._decoder = msgspec.msgpack.Decoder(kind)

    async def apply(self, fact: Fact) -> bool:
        """Takes the fact over if it is newer than what is known; says whether it was.

        A fact of an earlier epoch is never newer: it may speak of an entity that the restored state does not have.
        """
        if fact.epoch < self._database.epoch:
            return False
        state = facts.state_of(fact, self._kind)
        identity, row_version = identity_of(fact, state)
        async with self._database.connection() as connection:
            status = await connection.execute(
                """
                INSERT INTO projection (entity, workspace, id, key, epoch, generation, row_version, final, data)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                ON CONFLICT (entity, workspace, id) DO UPDATE SET key = excluded.key, epoch = excluded.epoch,
                    generation = excluded.generation, row_version = excluded.row_version, final = excluded.final,
                    data = excluded.data, seen_at = now()
                WHERE (projection.epoch, projection.row_version) < (excluded.epoch, excluded.row_version)
                """,
                self._entity, fact.workspace, identity, fact.key, fact.epoch, fact.generation, row_version,
                is_final(fact, state), bytes(fact.data),
            )  # fmt: skip
        return not str(status).endswith(" 0")

    async def get(self, identity: str, workspace: str = "default") -> T | None:
        """The entity's newest state, also when it has ended; None where it was never heard of."""
        async with self._database.connection() as connection:
            data = await connection.fetchval(
                "SELECT data FROM projection WHERE entity = $1 AND workspace = $2 AND id = $3",
                self._entity, workspace, identity,
            )  # fmt: skip
        return None if data is None else self._decoder.decode(data)

    async def some(
        self, identities: list[str], workspace: str = "default", connection: Connection | None = None
    ) -> dict[str, T]:
        """The newest state of several entities by id, also of those that have ended; who was never heard of is left
        out. With a connection: as its transaction sees them."""
        query = "SELECT id, data FROM projection WHERE entity = $1 AND workspace = $2 AND id = ANY($3)"
        if connection is not None:
            rows = await connection.fetch(query, self._entity, workspace, identities)
        else:
            async with self._database.connection() as reader:
                rows = await reader.fetch(query, self._entity, workspace, identities)
        return {row["id"]: self._decoder.decode(row["data"]) for row in rows}

    async def by_key(self, key: str, workspace: str = "default") -> list[T]:
        """The living entities of a key, e.g. the replicas of a service."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM projection"
                " WHERE entity = $1 AND workspace = $2 AND key = $3 AND NOT final ORDER BY id",
                self._entity, workspace, key,
            )  # fmt: skip
        return [self._decoder.decode(row["data"]) for row in rows]

    async def all(self, workspace: str = "default") -> list[T]:
        """Every living entity."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM projection WHERE entity = $1 AND workspace = $2 AND NOT final ORDER BY id",
                self._entity, workspace,
            )  # fmt: skip
        return [self._decoder.decode(row["data"]) for row in rows]

    async def versions(self, workspace: str = "default") -> dict[str, tuple[int, int]]:
        """(epoch, row_version) of every entity known, ended ones too; for checks against the owner's rows."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, epoch, row_version FROM projection WHERE entity = $1 AND workspace = $2",
                self._entity, workspace,
            )  # fmt: skip
        return {row["id"]: (row["epoch"], row["row_version"]) for row in rows}


def identity_of(fact: Fact, state: EntityState) -> tuple[str, int]:
    """(id, row_version) by which facts of an entity are told apart and ordered."""
    if isinstance(state, facts.ReplicaState):
        return state.id, state.row_version or fact.row_version
    if isinstance(state, facts.TrafficState):
        return state.replica, fact.row_version
    return fact.key, fact.row_version


def is_final(fact: Fact, state: EntityState) -> bool:
    """Whether nothing more will be heard of the entity."""
    if isinstance(state, facts.ReplicaState):
        return states.is_final(states.REPLICA, state.state)
    return fact.verb in ("deleted", "removed", "revoked") and fact.entity != "replica"


async def prune(database: Database) -> int:
    """Forgets ended entities after KEEP_FINAL_DAYS; says how many."""
    async with database.connection() as connection:
        status = await connection.execute(
            "DELETE FROM projection WHERE final AND seen_at < now() - make_interval(days => $1)", KEEP_FINAL_DAYS
        )
    return int(str(status).rsplit(" ", 1)[-1])
