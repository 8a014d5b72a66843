"""A process's own audit log: one row per mutation, written in the mutation's transaction. Holds no secret.

The table `audit` comes from the migrations of the process that has one; a trigger there keeps it append-only.
Who asked is what the call's metadata proved; this file never decides what is worth a record.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from easel_kit.db import Connection, Database
from easel_kit.grpc import Caller
from easel_proto.internal.v1 import audit_pb2
from easel_proto.v1.audit_pb2 import AuditRecord

NEWEST = 2**62


async def record(
    connection: Connection, caller: Caller, workspace: str, action: str, target: str,
    before: dict[str, Any] | None, after: dict[str, Any] | None,
) -> None:  # fmt: skip
    """Writes one record; `before` (None: it is new) and `after` (None: nothing is left) hold no secret."""
    await connection.execute(
        "INSERT INTO audit (workspace, actor, source, request_id, action, target, before_json, after_json)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        workspace, caller.actor, caller.source, caller.request_id, action, target,
        "" if before is None else json.dumps(before), "" if after is None else json.dumps(after),
    )  # fmt: skip


async def records(
    database: Database, owner: str, workspace: str, target: str, before_id: int, size: int
) -> list[AuditRecord]:
    """The newest records with ids below `before_id` (0: all), of one target or, where it is empty, of all."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT * FROM audit WHERE workspace = $1 AND ($2 = '' OR target = $2) AND id < $3"
            " ORDER BY id DESC LIMIT $4",
            workspace, target, before_id or NEWEST, size,
        )  # fmt: skip
    found = []
    for row in rows:
        made = AuditRecord(owner=owner, **{k: v for k, v in row.items() if k not in ("workspace", "at")})
        made.at.FromDatetime(row["at"])
        found.append(made)
    return found


async def summary(database: Database, workspace: str) -> audit_pb2.TrailSummary:
    """How many records there are, and since when."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT count(*) AS n, min(at) AS at FROM audit WHERE workspace = $1", workspace
        )
    assert row is not None
    if row["at"] is None:
        return audit_pb2.TrailSummary(records=0)
    oldest = Timestamp()
    oldest.FromDatetime(row["at"])
    return audit_pb2.TrailSummary(records=row["n"], oldest=oldest)
