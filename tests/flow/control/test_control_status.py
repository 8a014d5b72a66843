"""A service's status follows what scheduler and router tell, and the row goes when nothing is left."""

from __future__ import annotations

from typing import Any

from easel_contracts.errors import AlreadyExists, NotFound
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_mutations import create, refused, service_facts


async def get(control: Control) -> services_pb2.Service:
    request = services_pb2.GetServiceRequest(name="ocr")
    found: services_pb2.Service = await control.services().Get(request, metadata=control.auth)
    return found


async def becomes(control: Control, status: str, reason: str = "") -> services_pb2.Service:
    async def there() -> Any:
        got = await get(control)
        assert (got.status, got.reason if reason else "") == (status, reason), got
        return got

    found: services_pb2.Service = await eventually(there)
    return found


async def test_running_only_when_the_gateway_has_the_replica(control: Control) -> None:
    """Creating → Waiting → Running; ready alone is not enough."""
    await create(control)
    await control.hear("starting", replica("ocr-1-aaaaa", "starting"))
    waiting = await becomes(control, "Waiting")
    assert waiting.message.startswith("Total 1, Pending 1, Running 0")

    await control.hear("ready", replica("ocr-1-aaaaa", "ready", phase_s={"start": 0.5}))
    await control.hear("refused", route(state="refused"))
    assert (await becomes(control, "Waiting")).running_instance == 0

    await control.hear("applied", route("ocr-1-aaaaa"))
    running = await becomes(control, "Running")
    assert (running.running_instance, running.observed_generation) == (1, 1)
    assert {"start", "route", "total"} <= set(running.phase_s)
    revisions = await control.services().ListRevisions(
        services_pb2.ListRevisionsRequest(name="ocr"), metadata=control.auth
    )
    assert [r.state for r in revisions.revisions] == ["live"]


async def test_failure_and_missing_room_are_explained(control: Control) -> None:
    await create(control)
    await control.hear("pending", replica("ocr-1-aaaaa", "pending", cause="NoCapacity", message="cpu short by 3"))
    assert "cpu short by 3" in (await becomes(control, "Waiting", "NoCapacity")).message

    await control.hear("failed", replica("ocr-1-aaaaa", "failed", cause="CrashLoop", message="exited with 1"))
    failed = await becomes(control, "Failed", "CrashLoop")
    assert "exited with 1" in failed.message
    assert "easel logs" in failed.message
    why = await control.services().Explain(common_pb2.ExplainRequest(name="ocr"), metadata=control.auth)
    assert any(line.code == "CrashLoop" and line.hint for line in why.lines)


async def test_a_deleted_service_goes_when_replicas_and_route_are_gone(control: Control) -> None:
    """The row stays while something lives; afterwards the name is free and goes on counting."""
    await create(control)
    await control.hear("ready", replica("ocr-1-aaaaa", "ready"))
    await control.hear("applied", route("ocr-1-aaaaa"))
    await becomes(control, "Running")

    await control.services().Delete(services_pb2.DeleteServiceRequest(name="ocr"), metadata=control.auth)
    await becomes(control, "Deleting")
    assert isinstance(await refused(create(control)), AlreadyExists)
    await control.hear("stopped", replica("ocr-1-aaaaa", "stopped"))
    await control.hear("removed", route(state="removed"))

    async def gone() -> bool:
        listed = await control.services().List(services_pb2.ListServicesRequest(), metadata=control.auth)
        return not listed.services

    await eventually(gone)
    assert isinstance(await refused(get(control)), NotFound)
    told = await eventually(lambda: service_facts(control))
    assert told[-1][0] == "deleted"
    assert (await create(control)).generation == 3
