"""The scheduler's rows. Every change of a row raises row_version and tells its fact in the same transaction.

Guards: id + row_version, and the fencing token of the writer; no row updated raises Stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby

from msgspec.structs import replace

from easel_contracts import facts
from easel_contracts.facts import Cause, Fact
from easel_contracts.ids import uuid7
from easel_kit.db import Connection, Database, guarded, one
from easel_kit.outbox import tell
from easel_kit.rows import as_json
from easel_scheduler.decide.world import Holder, Reason, Replica
from easel_scheduler.model import NodeRow, node_state, replica_state

KEEP_DRAINED_DAYS = 8
"""What the router told of drained replicas is forgotten after the stream has forgotten it."""

KEEP_ANSWERS_H = 24
"""How long the answer to an idempotency key is remembered."""

_replica = as_json(Replica)
_node = as_json(NodeRow)


class Store:
    """Reads and guarded writes of one workspace."""

    def __init__(self, database: Database, workspace: str) -> None:
        self.database, self.workspace = database, workspace

    async def replica(self, replica_id: str, connection: Connection | None = None) -> Replica | None:
        """One replica, also when it has ended; None: there is no such row."""
        if connection is None:
            async with self.database.connection() as opened:
                return await self.replica(replica_id, opened)
        data = await connection.fetchval(
            "SELECT data FROM replica WHERE workspace = $1 AND id = $2", self.workspace, replica_id
        )
        return None if data is None else _replica.decode(data)

    async def of_service(self, service: str, ended: int = 20) -> tuple[Replica, ...]:
        """All that live, and the newest that ended."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data FROM replica WHERE workspace = $1 AND service = $2 AND live UNION ALL"
                " (SELECT data FROM replica WHERE workspace = $1 AND service = $2 AND NOT live"
                "  ORDER BY ended_at DESC LIMIT $3)",
                self.workspace, service, ended,
            )  # fmt: skip
        return tuple(_replica.decode(row["data"]) for row in rows)

    async def all_replicas(self) -> list[Replica]:
        """Every row; only for readers that rebuild."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT data FROM replica WHERE workspace = $1", self.workspace)
        return [_replica.decode(row["data"]) for row in rows]

    async def live_ids(self, node: str | None = None) -> list[str]:
        """Live replicas that have a node (this one)."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT id FROM replica WHERE workspace = $1 AND live"
                " AND CASE WHEN $2::text IS NULL THEN node IS NOT NULL ELSE node = $2 END",
                self.workspace, node,
            )  # fmt: skip
        return [row["id"] for row in rows]

    async def services(self, *, pending: bool = False) -> list[str]:
        """Services that have live replicas; or only those with a pending one."""
        which = "state = 'pending'" if pending else "live"
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                f"SELECT DISTINCT service FROM replica WHERE workspace = $1 AND {which}", self.workspace
            )
        return [row["service"] for row in rows]

    async def nodes(self) -> list[NodeRow]:
        """Every node ever joined."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT data, last_seen_at FROM node WHERE workspace = $1 ORDER BY id", self.workspace
            )
        return [replace(_node.decode(row["data"]), last_seen_at=row["last_seen_at"]) for row in rows]

    async def node(self, node_id: str) -> NodeRow | None:
        """One node."""
        async with self.database.connection() as connection:
            row = await connection.fetchrow(
                "SELECT data, last_seen_at FROM node WHERE workspace = $1 AND id = $2", self.workspace, node_id
            )
        return None if row is None else replace(_node.decode(row["data"]), last_seen_at=row["last_seen_at"])

    async def holders(self, *, leaving: bool = True) -> dict[str, tuple[Holder, ...]]:
        """Node → what live replicas reserve there, by service. `leaving`: with those that drain."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT node, service, count(*) AS replicas, sum(cpu) AS cpu, sum(memory_mib)::bigint AS memory_mib,"
                " sum(gpu)::int AS gpu FROM replica WHERE workspace = $1 AND live AND node IS NOT NULL"
                " AND ($2 OR state <> 'draining') GROUP BY node, service ORDER BY node, service",
                self.workspace, leaving,
            )  # fmt: skip
        return {
            node: tuple(
                Holder(service=x["service"], replicas=x["replicas"], cpu=x["cpu"], memory_mib=x["memory_mib"],
                       gpu=x["gpu"])
                for x in group
            )
            for node, group in groupby(rows, key=lambda x: str(x["node"]))
        }  # fmt: skip

    async def placement_version(self) -> int:
        """What `place` must still find; read it before the nodes."""
        async with self.database.connection() as connection:
            found = await connection.fetchval("SELECT version FROM placement WHERE workspace = $1", self.workspace)
        return found or 0

    async def place(self, connection: Connection, version: int, token: int) -> None:
        """Claims the right to place from what was seen at `version`; raises Stale when somebody placed since."""
        await connection.execute("INSERT INTO placement (workspace) VALUES ($1) ON CONFLICT DO NOTHING", self.workspace)
        status = await connection.execute(
            "UPDATE placement SET version = version + 1, token = $3"
            " WHERE workspace = $1 AND version = $2 AND token <= $3",
            self.workspace,
            version,
            token,
        )  # fmt: skip
        guarded(status)

    async def insert(self, connection: Connection, r: Replica, why: Reason, token: int) -> None:
        """A new replica, with its fact."""
        await connection.execute(
            "INSERT INTO replica (workspace, id, service, node, state, live, cpu, memory_mib, gpu, row_version,"
            " plan_token, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            r.workspace, r.id, r.service, r.node, r.state, r.live, r.spec.resources.cpu,
            r.spec.resources.memory_mib, r.spec.resources.gpu, r.row_version, token, _replica.encode(r),
        )  # fmt: skip
        await self._tell(connection, r, why)

    async def update(
        self, connection: Connection, r: Replica, why: Reason, *, plan_token: int = 0, life_token: int = 0,
        actor: str = "scheduler",
    ) -> Replica:  # fmt: skip
        """Writes `r` over the row it was read as, with its fact; raises Stale when somebody was first."""
        after = replace(r, row_version=r.row_version + 1)
        before = await connection.fetchrow(
            "UPDATE replica r SET node = $4, state = $5, live = $6, row_version = r.row_version + 1,"
            " plan_token = greatest(r.plan_token, $7), life_token = greatest(r.life_token, $8),"
            " ended_at = $9, data = $10"
            " FROM replica b WHERE r.workspace = $1 AND r.id = $2 AND r.row_version = $3"
            " AND (b.workspace, b.id, b.row_version) = (r.workspace, r.id, r.row_version)"
            " AND ($7::bigint = 0 OR r.plan_token <= $7) AND ($8::bigint = 0 OR r.life_token <= $8)"
            " RETURNING b.data",
            r.workspace, r.id, r.row_version, r.node, r.state, r.live, plan_token, life_token, r.ended_at,
            _replica.encode(after),
        )  # fmt: skip
        if (kept := _replica.kept(one(before)["data"], after)) is not None:
            await connection.execute(
                "UPDATE replica SET data = $3 WHERE workspace = $1 AND id = $2", r.workspace, r.id, kept
            )
        await self._tell(connection, after, why, actor)
        return after

    async def write_node(self, connection: Connection, row: NodeRow, why: Reason, token: int) -> None:
        """Writes a node over the row it was read as (row_version 0: it is new), with its fact; may raise Stale."""
        after = replace(row, row_version=row.row_version + 1)
        written = await connection.fetchrow(
            "WITH before AS (SELECT data FROM node WHERE workspace = $1 AND id = $2 AND row_version = $4)"
            " INSERT INTO node (workspace, id, state, row_version, token, agent_addr, last_seen_at, data)"
            " VALUES ($1, $2, $3, $4 + 1, $5, $6, $7, $8) ON CONFLICT (workspace, id) DO UPDATE"
            " SET state = $3, row_version = $4 + 1, token = $5, agent_addr = $6, last_seen_at = $7, data = $8"
            " WHERE node.row_version = $4 AND node.token <= $5 RETURNING (SELECT data FROM before) AS before",
            row.workspace, row.id, row.state, row.row_version, token, row.agent_addr, row.last_seen_at,
            _node.encode(after),
        )  # fmt: skip
        before = one(written)["before"]
        if before is not None and (kept := _node.kept(before, after)) is not None:
            await connection.execute(
                "UPDATE node SET data = $3 WHERE workspace = $1 AND id = $2", row.workspace, row.id, kept
            )
        cause = Cause(actor="scheduler", reason=why.code, message=why.message)
        await tell(
            connection, self.database, entity="node", verb=row.state, key=row.id, generation=1,
            row_version=after.row_version, state=node_state(after), cause=cause, workspace=row.workspace,
        )  # fmt: skip

    async def seen(self, node: str, at: datetime) -> None:
        """Notes when a node was last heard; no fact."""
        async with self.database.connection() as connection:
            await connection.execute(
                "UPDATE node SET last_seen_at = $3 WHERE workspace = $1 AND id = $2 AND last_seen_at < $3",
                self.workspace, node, at,
            )  # fmt: skip

    async def prune(self, keep: int, days: int) -> list[str]:
        """Deletes ended replicas beyond the newest `keep` of each service or older than `days`; says which."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "DELETE FROM replica r USING (SELECT id, row_number() OVER"
                "  (PARTITION BY service ORDER BY ended_at DESC) AS n FROM replica WHERE workspace = $1 AND NOT live) x"
                " WHERE r.workspace = $1 AND r.id = x.id AND NOT r.live"
                " AND (x.n > $2 OR r.ended_at < now() - make_interval(days => $3)) RETURNING r.id",
                self.workspace, keep, days,
            )  # fmt: skip
            await connection.execute(
                "DELETE FROM projection WHERE entity = 'traffic' AND seen_at < now() - make_interval(days => $1)",
                KEEP_DRAINED_DAYS,
            )
            await connection.execute(
                "DELETE FROM idempotency WHERE at < now() - make_interval(hours => $1)", KEEP_ANSWERS_H
            )
        return [row["id"] for row in rows]

    async def _tell(self, connection: Connection, r: Replica, why: Reason, actor: str = "scheduler") -> None:
        await tell(
            connection, self.database, entity="replica", verb=r.state, key=r.service, generation=r.generation,
            row_version=r.row_version, state=replica_state(r), workspace=r.workspace,
            cause=Cause(actor=actor, reason=why.code, message=why.message, traceparent=r.traceparent),
        )  # fmt: skip


def replica_facts(rows: Iterable[Replica], epoch: int) -> list[Fact]:
    """The newest fact of every replica, for readers that rebuild."""
    return [
        Fact(
            id=uuid7(), entity="replica", verb=r.state, workspace=r.workspace, key=r.service, epoch=epoch,
            generation=r.generation, row_version=r.row_version, at=r.state_at, data=facts.raw(replica_state(r)),
            cause=Cause(actor="scheduler", reason=r.cause or r.state.capitalize(), message=r.message),
        )
        for r in rows
    ]  # fmt: skip


def node_facts(rows: Iterable[NodeRow], epoch: int) -> list[Fact]:
    """The newest fact of every node, for readers that rebuild."""
    return [
        Fact(
            id=uuid7(), entity="node", verb=row.state, workspace=row.workspace, key=row.id, epoch=epoch,
            generation=1, row_version=row.row_version, at=row.last_seen_at, data=facts.raw(node_state(row)),
            cause=Cause(actor="scheduler", reason=row.state, message=""),
        )
        for row in rows
    ]  # fmt: skip
