"""The audit log: one row per mutation, in its own transaction, append-only by a trigger. Holds no secret."""

from __future__ import annotations

import json
from typing import Any

from easel_control.model import ServiceRow
from easel_control.pages import page_size, plain, workspace_of
from easel_kit.db import Connection, Database
from easel_kit.grpc import Caller
from easel_proto.v1 import audit_pb2, audit_pb2_grpc


async def record_service(
    connection: Connection, caller: Caller, action: str, before: ServiceRow | None, after: ServiceRow
) -> None:
    """Writes who changed a service, from where, in the transaction of the change."""
    await record(
        connection, caller, after.workspace, action, f"service/{after.name}", shown(before) if before else None,
        shown(after),
    )  # fmt: skip


async def record(
    connection: Connection, caller: Caller, workspace: str, action: str, target: str,
    before: dict[str, Any] | None, after: dict[str, Any],
) -> None:  # fmt: skip
    """Writes one record; `before` and `after` hold no secret."""
    await connection.execute(
        "INSERT INTO audit (workspace, actor, source, request_id, action, target, before_json, after_json)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        workspace, caller.actor, caller.source, caller.request_id, action, target,
        "" if before is None else json.dumps(before), json.dumps(after),
    )  # fmt: skip


def shown(row: ServiceRow) -> dict[str, Any]:
    """What the log keeps of a service."""
    return {
        "generation": row.generation,
        "wanted": row.wanted,
        "instance": row.instance,
        "revision": row.revision.number,
        "restarts": row.revision.restart_nonce,
        "token_version": row.token_version,
        "config": json.loads(row.config_shown),
    }


class AuditApi(audit_pb2_grpc.AuditServicer):
    """easel.v1.Audit."""

    def __init__(self, database: Database, workspace: str) -> None:
        self._database, self._workspace = database, workspace

    async def List(self, request: audit_pb2.ListAuditRequest, context: object) -> audit_pb2.ListAuditResponse:
        """Newest first."""
        size = page_size(request.page_size)
        before = int(request.page_token) if request.page_token.isdigit() else 2**62
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM audit WHERE workspace = $1 AND ($2 = '' OR target = $2) AND id < $3"
                " ORDER BY id DESC LIMIT $4",
                workspace_of(request.workspace, self._workspace), plain(request.target), before, size + 1,
            )  # fmt: skip
        answer = audit_pb2.ListAuditResponse()
        for row in rows[:size]:
            record = answer.records.add(**{k: v for k, v in row.items() if k not in ("workspace", "at")})
            record.at.FromDatetime(row["at"])
        if len(rows) > size:
            answer.next_page_token = str(rows[size - 1]["id"])
        return answer
