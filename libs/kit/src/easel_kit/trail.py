"""easel.internal.v1.AuditTrail: a process's own audit records, for control, which shows all of them together."""

from __future__ import annotations

from easel_contracts.errors import Unauthenticated
from easel_kit import audit
from easel_kit.db import Database
from easel_kit.grpc import caller
from easel_proto.internal.v1 import audit_pb2, audit_pb2_grpc

LIST_MOST = 1001
"""Control's largest page, and one more by which it knows that there are others."""


class TrailApi(audit_pb2_grpc.AuditTrailServicer):
    """Reads only."""

    def __init__(self, database: Database, owner: str) -> None:
        self._database, self._owner = database, owner

    async def List(self, request: audit_pb2.ListTrailRequest, context: object) -> audit_pb2.ListTrailResponse:
        """Newest first."""
        _only_control()
        size = min(max(request.size, 1), LIST_MOST)
        found = await audit.records(
            self._database, self._owner, request.workspace, request.target, request.before_id, size
        )
        return audit_pb2.ListTrailResponse(records=found)

    async def Summary(self, request: audit_pb2.TrailSummaryRequest, context: object) -> audit_pb2.TrailSummary:
        """How many, and since when."""
        _only_control()
        return await audit.summary(self._database, request.workspace)


def _only_control() -> None:
    if caller().actor != "control":
        raise Unauthenticated("NOT_FOR_YOU", f"only control may ask for this, not {caller().actor}")
