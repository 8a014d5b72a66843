"""easel.internal.v1.Counts: exact counts of the requests of a canary, for control alone."""

from __future__ import annotations

from easel_contracts.errors import FieldError, InvalidInput, Unauthenticated
from easel_kit.grpc import caller
from easel_monitor.arm_counts import ArmCounts
from easel_monitor.model import ArmSecond
from easel_monitor.store import ArmSeconds
from easel_proto.internal.v1 import monitor_pb2, monitor_pb2_grpc

READER = "control"
ROWS_MOST = 2000
"""In one answer, so that it stays below gRPC's 4 MiB; the reader goes on from the second it is final through."""


class CountsApi(monitor_pb2_grpc.CountsServicer):
    """Seconds out of memory, and out of the database where memory does not reach back."""

    def __init__(self, counts: ArmCounts, store: ArmSeconds, workspace: str) -> None:
        self._counts, self._store, self._workspace = counts, store, workspace

    async def Read(self, request: monitor_pb2.ReadCountsRequest, context: object) -> monitor_pb2.ReadCountsResponse:
        """The seconds of a canary that are over, after the one named."""
        if caller().actor != READER:
            raise Unauthenticated("NOT_FOR_YOU", f"only {READER} may ask for this, not {caller().actor}")
        if not request.subject:
            raise _wrong("subject", "MISSING", "subject is missing: it names a canary")
        if request.workspace and request.workspace != self._workspace:
            message = f"counts are of workspace {self._workspace}, not of {request.workspace}"
            raise _wrong("workspace", "NOT_ALLOWED", message)
        final_s = self._counts.roll()
        rows = self._counts.recent(request.subject, request.after_unix_s)
        if rows is None:
            waiting = self._counts.unsaved(request.subject, request.after_unix_s)
            written = await self._store.read(request.subject, request.after_unix_s, ROWS_MOST + 1)
            known = {(row.unix_s, row.arm) for row in written}
            rows = sorted([*written, *(row for row in waiting if (row.unix_s, row.arm) not in known)],
                          key=lambda row: (row.unix_s, row.arm))  # fmt: skip
        if len(rows) > ROWS_MOST:
            cut_s = rows[ROWS_MOST].unix_s
            rows, final_s = [row for row in rows[:ROWS_MOST] if row.unix_s < cut_s], cut_s - 1
        return monitor_pb2.ReadCountsResponse(seconds=map(_told, rows), final_through_unix_s=final_s)


def _told(row: ArmSecond) -> monitor_pb2.ArmSecond:
    return monitor_pb2.ArmSecond(
        unix_s=row.unix_s, arm=row.arm, requests=row.requests, errors=row.errors, latency_bins=row.bins
    )


def _wrong(path: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(message, (FieldError(path=path, code=code, message=message),))
