"""The audit log as users see it: control's own records and those of other owners, newest first. Holds no secret.

A page's token is the position in each log, so pages stay whole whoever writes meanwhile. Where an owner does not
answer, the answer says so: its records are missing then, never silently.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import grpc.aio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

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

OTHERS = {"monitor": "webhooks, tokens for outsiders", "scheduler": "replicas replaced, restarted, isolated"}
"""Who else keeps records, and of what."""
TRAIL_TIMEOUT_S = 2.0
TOKEN = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})(?:\.([0-9]{1,18}))?")
"""One number for each log; a version that knew of two wrote two."""


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
        "mirroring": msgspec.to_builtins(row.mirroring),
        "config": json.loads(row.config_shown),
    }


class Position(Struct, frozen=True):
    """Up to where each log was read: only ids below these are still to come; 0: nothing was read."""

    control: int = 0
    monitor: int = 0
    scheduler: int = 0

    @classmethod
    def of(cls, token: str) -> Position:
        """From a page token; raises InvalidInput."""
        if not token:
            return cls()
        found = TOKEN.fullmatch(token)
        if found is None:
            raise InvalidInput("page_token is not one of this API's; leave it out for the newest records")
        return cls(*(int(number or 0) for number in found.groups()))

    def token(self) -> str:
        """As a page token."""
        return f"{self.control}.{self.monitor}.{self.scheduler}"


def merged(
    logs: Mapping[str, Sequence[audit_pb2.AuditRecord]], size: int, start: Position
) -> tuple[list[audit_pb2.AuditRecord], Position]:
    """The newest `size` of several logs (by owner), each newest first, in each log's own order; and where to read
    on."""
    left = {owner: list(records) for owner, records in logs.items()}
    found: list[audit_pb2.AuditRecord] = []
    read: dict[str, int] = {}
    while len(found) < size and any(left.values()):
        newest = max((owner for owner in left if left[owner]), key=lambda owner: left[owner][0].at.ToNanoseconds())
        found.append(left[newest].pop(0))
        read[newest] = found[-1].id
    return found, replace(start, **read)


class AuditApi(audit_pb2_grpc.AuditServicer):
    """easel.v1.Audit. `trails`: the channel to each of OTHERS."""

    def __init__(
        self, database: Database, workspace: str, trails: Mapping[str, grpc.aio.Channel], clock: Clock
    ) -> None:  # fmt: skip
        self._database, self._workspace, self._clock = database, workspace, clock
        self._trails: dict[str, Any] = {owner: trail_grpc.AuditTrailStub(trail) for owner, trail in trails.items()}

    async def List(self, request: audit_pb2.ListAuditRequest, context: object) -> audit_pb2.ListAuditResponse:
        """Newest first."""
        size, start = page_size(request.page_size), Position.of(request.page_token)
        workspace, target = workspace_of(request.workspace, self._workspace), plain(request.target)
        logs = {"control": await audit.records(self._database, "control", workspace, target, start.control, size + 1)}

        async def listed(owner: str) -> list[audit_pb2.AuditRecord] | grpc.aio.AioRpcError:
            asked = trail_pb2.ListTrailRequest(
                workspace=workspace, target=target, before_id=getattr(start, owner), size=size + 1
            )
            try:
                return list((await self._trails[owner].List(asked, timeout=TRAIL_TIMEOUT_S)).records)
            except grpc.aio.AioRpcError as error:
                return error

        away = []
        for owner, found in zip(self._trails, await asyncio.gather(*map(listed, self._trails)), strict=True):
            if isinstance(found, grpc.aio.AioRpcError):
                away.append(_away(owner, found))
            else:
                logs[owner] = found
        records, end = merged(logs, size, start)
        more = sum(map(len, logs.values())) > size
        return audit_pb2.ListAuditResponse(
            records=records, incomplete="; ".join(away), next_page_token=end.token() if more else ""
        )

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """How much is recorded, and since when."""
        workspace = workspace_of(request.workspace, self._workspace)
        answer = common_pb2.Explanation(part="control")
        answer.at.FromDatetime(self._clock.now())
        own = await audit.summary(self._database, workspace)
        answer.lines.append(_counted("control", own, "services, keys, uploads"))
        for owner, trail in self._trails.items():
            try:
                asked = trail_pb2.TrailSummaryRequest(workspace=workspace)
                found = await trail.Summary(asked, timeout=TRAIL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                answer.lines.add(code=f"{owner.capitalize()}Away", message=_away(owner, error),
                                 hint="see with `easel status` whether it runs")  # fmt: skip
            else:
                answer.lines.append(_counted(owner, found, OTHERS[owner]))
        answer.lines.add(code="AppendOnly", message="the database refuses to change or delete a record; none expires")
        return answer


def _counted(owner: str, found: trail_pb2.TrailSummary, of: str) -> common_pb2.Why:
    since = f", the oldest of {found.oldest.ToDatetime():%Y-%m-%d %H:%M:%S} UTC" if found.records else ""
    return common_pb2.Why(code="Records", message=f"{owner} holds {found.records} records ({of}){since}")


def _away(owner: str, error: grpc.aio.AioRpcError) -> str:
    why = error.details() or error.code().name
    return f"the {owner}'s records ({OTHERS[owner]}) are missing: it does not answer: {why}"
