"""The audit log as users see it: control's own records and the monitor's, newest first. Holds no secret.

A page's token is the position in both logs, so pages stay whole whoever writes meanwhile. Where the monitor does not
answer, the answer says so: its records are missing then, never silently.
"""

from __future__ import annotations

import json
import re
from typing import Any

import grpc.aio
from msgspec import Struct

from easel_contracts.errors import InvalidInput
from easel_control.model import ServiceRow
from easel_control.pages import page_size, plain, workspace_of
from easel_kit import audit
from easel_kit.audit import record
from easel_kit.clock import Clock
from easel_kit.db import Connection, Database
from easel_kit.grpc import Caller
from easel_proto.internal.v1 import audit_pb2 as trail_pb2
from easel_proto.internal.v1 import audit_pb2_grpc as trail_grpc
from easel_proto.v1 import audit_pb2, audit_pb2_grpc, common_pb2

__all__ = ["AuditApi", "Position", "merged", "record", "record_service", "shown"]

MONITOR_TIMEOUT_S = 2.0
TOKEN = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")


async def record_service(
    connection: Connection, caller: Caller, action: str, before: ServiceRow | None, after: ServiceRow
) -> None:
    """Writes who changed a service, from where, in the transaction of the change."""
    await record(
        connection, caller, after.workspace, action, f"service/{after.name}", shown(before) if before else None,
        shown(after),
    )  # fmt: skip


def shown(row: ServiceRow) -> dict[str, Any]:
    """What the log keeps of a service."""
    return {
        "generation": row.generation,
        "wanted": row.wanted,
        "instance": row.instance,
        "revision": row.revision.number,
        "restart_nonce": row.revision.restart_nonce,
        "rollout": "" if row.rollout is None else f"{row.rollout.state} from revision {row.rollout.stable.number}",
        "lock": row.lock,
        "token_version": row.token_version,
        "config": json.loads(row.config_shown),
    }


class Position(Struct, frozen=True):
    """Up to where both logs were read: only ids below these are still to come; 0: nothing was read."""

    control: int = 0
    monitor: int = 0

    @classmethod
    def of(cls, token: str) -> Position:
        """From a page token; raises InvalidInput."""
        if not token:
            return cls()
        found = TOKEN.fullmatch(token)
        if found is None:
            raise InvalidInput("page_token is not one of this API's; leave it out for the newest records")
        return cls(int(found.group(1)), int(found.group(2)))

    def token(self) -> str:
        """As a page token."""
        return f"{self.control}.{self.monitor}"


def merged(
    own: list[audit_pb2.AuditRecord], others: list[audit_pb2.AuditRecord], size: int, start: Position
) -> tuple[list[audit_pb2.AuditRecord], Position]:
    """The newest `size` of two lists, each newest first, in each list's own order; and where to read on."""
    left, right = list(own), list(others)
    found: list[audit_pb2.AuditRecord] = []
    control, monitor = start.control, start.monitor
    while len(found) < size and (left or right):
        if left and (not right or left[0].at.ToNanoseconds() >= right[0].at.ToNanoseconds()):
            found.append(left.pop(0))
            control = found[-1].id
        else:
            found.append(right.pop(0))
            monitor = found[-1].id
    return found, Position(control, monitor)


class AuditApi(audit_pb2_grpc.AuditServicer):
    """easel.v1.Audit."""

    def __init__(self, database: Database, workspace: str, monitor: grpc.aio.Channel, clock: Clock) -> None:
        self._database, self._workspace, self._clock = database, workspace, clock
        self._monitor: Any = trail_grpc.AuditTrailStub(monitor)

    async def List(self, request: audit_pb2.ListAuditRequest, context: object) -> audit_pb2.ListAuditResponse:
        """Newest first."""
        size, start = page_size(request.page_size), Position.of(request.page_token)
        workspace, target = workspace_of(request.workspace, self._workspace), plain(request.target)
        own = await audit.records(self._database, "control", workspace, target, start.control, size + 1)
        asked = trail_pb2.ListTrailRequest(
            workspace=workspace, target=target, before_id=start.monitor, size=size + 1
        )  # fmt: skip
        others: list[audit_pb2.AuditRecord] = []
        answer = audit_pb2.ListAuditResponse()
        try:
            others = list((await self._monitor.List(asked, timeout=MONITOR_TIMEOUT_S)).records)
        except grpc.aio.AioRpcError as error:
            answer.incomplete = _away(error)
        found, end = merged(own, others, size, start)
        answer.records.extend(found)
        if len(own) + len(others) > size:
            answer.next_page_token = end.token()
        return answer

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """How much is recorded, and since when."""
        workspace = workspace_of(request.workspace, self._workspace)
        answer = common_pb2.Explanation(part="control")
        answer.at.FromDatetime(self._clock.now())
        own = await audit.summary(self._database, workspace)
        answer.lines.append(_counted("control", own, "services, keys, uploads"))
        try:
            asked = trail_pb2.TrailSummaryRequest(workspace=workspace)
            others = await self._monitor.Summary(asked, timeout=MONITOR_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            answer.lines.add(code="MonitorAway", message=_away(error), hint="see with `easel status` whether it runs")
        else:
            answer.lines.append(_counted("monitor", others, "webhooks, tokens for outsiders"))
        answer.lines.add(code="AppendOnly", message="the database refuses to change or delete a record; none expires")
        return answer


def _counted(owner: str, found: trail_pb2.TrailSummary, of: str) -> common_pb2.Why:
    since = f", the oldest of {found.oldest.ToDatetime():%Y-%m-%d %H:%M:%S} UTC" if found.records else ""
    return common_pb2.Why(code="Records", message=f"{owner} holds {found.records} records ({of}){since}")


def _away(error: grpc.aio.AioRpcError) -> str:
    why = error.details() or error.code().name
    return f"the monitor's records (webhooks, tokens for outsiders) are missing: it does not answer: {why}"
