"""`Audit` at control: its own records and those of the others together; one that is silent is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from easel_kit.grpc import Server
from easel_kit.keyring import Keyring
from easel_kit.testing import eventually
from easel_proto.internal.v1 import audit_pb2 as trail_pb2
from easel_proto.internal.v1 import audit_pb2_grpc
from easel_proto.v1 import audit_pb2, common_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import create


class Trail(audit_pb2_grpc.AuditTrailServicer):
    """Two records of an owner, made now."""

    def __init__(self, owner: str) -> None:
        self.records = []
        for identity in (2, 1):
            record = audit_pb2.AuditRecord(id=identity, owner=owner, action="Something.Done")
            record.at.FromDatetime(datetime.now(UTC))
            self.records.append(record)

    async def List(self, request: trail_pb2.ListTrailRequest, context: Any) -> trail_pb2.ListTrailResponse:
        older = [r for r in self.records if not request.before_id or r.id < request.before_id]
        return trail_pb2.ListTrailResponse(records=older[: request.size])

    async def Summary(self, request: trail_pb2.TrailSummaryRequest, context: Any) -> trail_pb2.TrailSummary:
        return trail_pb2.TrailSummary(records=2, oldest=self.records[-1].at)


@asynccontextmanager
async def a_trail(control: Control, owner: str) -> AsyncIterator[None]:
    """A process that serves its trail, at its address."""
    server = Server(control.settings.addr(owner), Keyring(control.settings.peers_file))
    server.add(audit_pb2_grpc.add_AuditTrailServicer_to_server, Trail(owner), "easel.internal.v1.AuditTrail")
    await server.start()

    async def answers() -> bool:
        return owner not in (await listed(control)).incomplete

    try:
        await eventually(answers)  # control knocked before and tries again after a pause
        yield
    finally:
        await server.stop(0)


async def listed(control: Control, **fields: Any) -> audit_pb2.ListAuditResponse:
    request = audit_pb2.ListAuditRequest(**fields)
    answer: audit_pb2.ListAuditResponse = await control.audit().List(request, metadata=control.auth)
    return answer


async def test_the_others_records_are_among_controls(control: Control) -> None:
    """All in one list, newest first, over pages of one record too."""
    await create(control)
    async with a_trail(control, "monitor"), a_trail(control, "scheduler"):
        whole = await listed(control)
        pages = [await listed(control, page_size=1)]
        while pages[-1].next_page_token:
            pages.append(await listed(control, page_size=1, page_token=pages[-1].next_page_token))

    owners = [r.owner for r in whole.records]
    assert owners[:5] == ["scheduler", "scheduler", "monitor", "monitor", "control"]
    assert not whole.incomplete
    assert [r for p in pages for r in p.records] == list(whole.records)


async def test_a_silent_owner_is_named(control: Control) -> None:
    """Control's records come all the same; the answer says what is missing."""
    await create(control)

    async with a_trail(control, "scheduler"):
        answer = await listed(control)

    assert {"control", "scheduler"} == {r.owner for r in answer.records}
    assert "Services.Create" in [r.action for r in answer.records]
    assert "monitor" in answer.incomplete
    assert "scheduler" not in answer.incomplete


async def test_explain_counts_the_records(control: Control) -> None:
    await create(control)
    async with a_trail(control, "monitor"), a_trail(control, "scheduler"):
        found = await control.audit().Explain(common_pb2.ExplainRequest(), metadata=control.auth)
    without = await control.audit().Explain(common_pb2.ExplainRequest(), metadata=control.auth)

    assert found.lines[0].message.startswith("control holds 2 records")  # the first key, and ocr
    assert found.lines[1].message.startswith("monitor holds 2 records")
    assert found.lines[2].message.startswith("scheduler holds 2 records")
    assert {"MonitorAway", "SchedulerAway"} <= {line.code for line in without.lines}
