"""Mirrors over gRPC: settings in the service's row, told and audited; targets that are deleted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from easel_contracts import facts
from easel_contracts.errors import Conflict, InvalidInput, NotFound
from easel_contracts.facts import Fact, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring
from easel_kit.testing import eventually
from easel_proto.v1 import audit_pb2, common_pb2, mirrors_pb2, services_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import create, refused, text


async def put(control: Control, name: str = "ocr", *targets: str, percent: float = 10, **more: Any) -> Any:
    request = mirrors_pb2.SetMirrorRequest(name=name, targets=targets or ("echo",), percent=percent, **more)
    return await control.mirrors().Set(request, metadata=control.auth)


async def made(control: Control, *names: str) -> None:
    for name in names:
        await create(control, text(metadata={"name": name, "instance": 1, "cpu": 1, "memory": 512}))


async def get(control: Control, name: str = "ocr") -> Any:
    return await control.mirrors().Get(mirrors_pb2.GetMirrorRequest(name=name), metadata=control.auth)


async def delete(control: Control, name: str = "ocr") -> Any:
    return await control.mirrors().Delete(mirrors_pb2.DeleteMirrorRequest(name=name), metadata=control.auth)


async def told_of(control: Control, name: str) -> list[tuple[Fact, ServiceState]]:
    found = [f for f in await control.told() if (f.entity, f.key) == ("service", name)]
    return [(f, facts.state_of(f, ServiceState)) for f in found]


async def newest(control: Control, name: str, generation: int) -> ServiceState | None:
    """The state last told, once it is of that generation."""
    found = [state for _, state in await told_of(control, name) if state.generation >= generation]
    return found[-1] if found else None


async def test_set_get_and_delete(control: Control) -> None:
    """Told to the router with the service; no revision is made."""
    await made(control, "ocr", "echo")
    compare = mirrors_pb2.CompareOptions(tolerance=0.01, ignore=["meta.took_ms"], no_side_effects=True)

    answer = await put(control, compare=compare)

    assert (answer.targets, answer.percent, answer.compare.samples_per_s) == (["echo"], 10, 5)
    assert "20 % of these twice" in answer.warnings[0]
    assert await get(control) == answer
    state = await eventually(lambda: newest(control, "ocr", 2))
    wanted = Mirroring(targets=("echo",), percent=10, compare=Comparison(tolerance=0.01, ignore=("meta.took_ms",)))
    assert (state.mirroring, state.revision.number) == (wanted, 1)
    again = await put(control, compare=compare)
    assert again == answer

    gone = await delete(control)

    assert (list(gone.targets), list(gone.warnings)) == (["echo"], [])
    assert isinstance(await refused(get(control)), NotFound)
    assert (await refused(delete(control))).code == "NO_MIRROR"
    state = await eventually(lambda: newest(control, "ocr", 3))
    assert state.mirroring is None
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert [r.action for r in audit.records] == ["Mirrors.Delete", "Mirrors.Set", "Services.Create"]
    assert json.loads(audit.records[0].before_json)["mirroring"]["targets"] == ["echo"]


async def test_an_update_of_the_service_leaves_it(control: Control) -> None:
    await made(control, "ocr", "echo")
    await put(control, "ocr", "echo", CANDIDATE)

    update = services_pb2.UpdateServiceRequest(name="ocr", config=text(labels={"a": "b"}), update_type="replace")
    await control.services().Update(update, metadata=control.auth)

    assert list((await get(control)).targets) == ["echo", CANDIDATE]


async def test_bad_settings_change_nothing(control: Control) -> None:
    await made(control, "ocr", "echo")

    error = await refused(put(control, "ocr", "nope", "no\0pe", percent=101))

    assert isinstance(error, InvalidInput)
    assert [(f.path, f.code) for f in error.fields] == [
        ("targets[0]", "NOT_FOUND"), ("targets[1]", "NOT_FOUND"), ("percent", "OUT_OF_RANGE"),
    ]  # fmt: skip
    assert isinstance(await refused(get(control)), NotFound)
    assert (await refused(put(control, "none"))).code == "NO_SUCH_SERVICE"


async def test_of_two_that_mirror_each_other_at_the_same_time_one_is_refused(control: Control) -> None:
    await made(control, "ocr", "echo")

    results = await asyncio.gather(
        put(control, "ocr", "echo"), put(control, "echo", "ocr"), return_exceptions=True
    )  # fmt: skip

    assert [isinstance(r, Exception) for r in results].count(True) == 1


async def test_a_locked_service(control: Control) -> None:
    await made(control, "ocr", "echo")
    lock = services_pb2.LockServiceRequest(name="ocr", lock="all")
    await control.services().Lock(lock, metadata=control.auth)

    error = await refused(put(control))

    assert isinstance(error, Conflict)
    assert error.code == "LOCKED"


async def test_a_deleted_target_is_dropped_and_told(control: Control) -> None:
    """From each that mirrors to it, in the same reconcile that sees it go; the audit log says who did it."""
    await made(control, "ocr", "echo", "tagger", "other")
    await put(control, "ocr", "echo", "tagger")
    await put(control, "other", "echo")

    await control.services().Delete(services_pb2.DeleteServiceRequest(name="echo"), metadata=control.auth)

    async def dropped() -> bool:
        return list((await get(control)).targets) == ["tagger"]

    await eventually(dropped)
    await eventually(lambda: refused_get(control, "other"))
    fact, state = await eventually(lambda: last_with(control, "ocr", "MirrorTargetDeleted"))
    assert (fact.verb, fact.cause.actor) == ("updated", "control")
    assert fact.cause.message == "echo is deleted: copies still go to tagger"
    assert state.mirroring == Mirroring(targets=("tagger",), percent=10)
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/other"), metadata=control.auth)
    assert (audit.records[0].action, audit.records[0].actor) == ("Mirrors.DropTarget", "control")
    assert (await refused(put(control, "other", "echo"))).code == "INVALID_INPUT"


async def refused_get(control: Control, name: str) -> bool:
    error = await refused(get(control, name))
    return error.code == "NO_MIRROR"


async def last_with(control: Control, name: str, reason: str) -> tuple[Fact, ServiceState] | None:
    found = [(f, s) for f, s in await told_of(control, name) if f.cause.reason == reason]
    return found[-1] if found else None


async def test_explain_tells_of_it(control: Control) -> None:
    await made(control, "ocr", "echo")
    await put(control)

    found = await control.services().Explain(common_pb2.ExplainRequest(name="ocr"), metadata=control.auth)

    told = {line.code: line.message for line in found.lines}
    assert told["Mirroring"] == "10 % of the requests are copied to echo"
