"""Rollouts on the real stores: wave by wave, paused, taken back, switched; told, audited, and refused without room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from easel_contracts.errors import Conflict, InvalidInput, NotFound, Refused
from easel_contracts.facts import ServiceState
from easel_contracts.spec import RevisionSpec
from easel_kit.grpc import Server
from easel_kit.keyring import Keyring
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2, scheduler_pb2, scheduler_pb2_grpc
from easel_proto.v1 import audit_pb2, common_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_mutations import FILE, create, refused, service_facts, text
from tests.flow.control.test_control_status import becomes, get

TWO: dict[str, Any] = {"metadata": FILE["metadata"] | {"instance": 2}}


async def running(control: Control, **more: Any) -> services_pb2.Service:
    """A service of two replicas, running."""
    await create(control, text(**TWO, **more))
    for name in "ab":
        await control.hear("ready", replica(f"ocr-1-{name}", "ready"))
    await control.hear("applied", route("ocr-1-a", "ocr-1-b"))
    return await becomes(control, "Running", "Running")


async def update(control: Control, config: dict[str, Any], **more: Any) -> services_pb2.Service:
    request = services_pb2.UpdateServiceRequest(name="ocr", config=json.dumps(config), **more)
    answer: services_pb2.Service = await control.services().Update(request, metadata=control.auth)
    return answer


async def rollout(control: Control, action: str, **more: Any) -> services_pb2.Service:
    request = services_pb2.ChangeRolloutRequest(name="ocr", action=action, **more)
    answer: services_pb2.Service = await control.services().ChangeRollout(request, metadata=control.auth)
    return answer


async def switch(control: Control, number: int, **more: Any) -> services_pb2.Service:
    request = services_pb2.SwitchRevisionRequest(name="ocr", revision=number, **more)
    answer: services_pb2.Service = await control.services().SwitchRevision(request, metadata=control.auth)
    return answer


async def states(control: Control) -> dict[int, str]:
    request = services_pb2.ListRevisionsRequest(name="ocr")
    found = await control.services().ListRevisions(request, metadata=control.auth)
    assert [r.number for r in found.revisions if r.current] == [(await get(control)).current_version]
    return {r.number: r.state for r in found.revisions}


async def replaced(control: Control, number: int, old: int) -> None:
    """Both replicas are of another revision, and the old ones have ended."""
    for name in "ab":
        await control.hear("ready", replica(f"ocr-{number}-{name}", "ready", revision=number))
    await control.hear("applied", route(f"ocr-{number}-a", f"ocr-{number}-b"))
    for name in "ab":
        await control.hear("stopped", replica(f"ocr-{old}-{name}", "stopped", revision=old))


async def test_an_update_goes_wave_by_wave(control: Control) -> None:
    """One replica of the new revision, then all; the old one is stable until nothing of it is left."""
    await running(control)
    begun = await update(control, {"metadata.cpu": 2})
    assert (begun.rollout.from_revision, begun.rollout.to_revision, begun.rollout.share_percent) == (1, 2, 20)
    assert (begun.status, begun.current_version, begun.latest_version) == ("Updating", 2, 2)

    await control.hear("ready", replica("ocr-2-a", "ready", revision=2))
    await control.hear("applied", route("ocr-1-a", "ocr-1-b", "ocr-2-a"))

    async def second_wave() -> Any:
        got = await get(control)
        assert got.rollout.share_percent == 100, got
        return got

    got = await eventually(second_wave)
    assert (got.status, got.reason, got.running_instance) == ("Updating", "RollingOut", 2)
    assert "revision 2, wave 3 of 3 (100 %): 1 of 2 serve, 2 of revision 1 serve meanwhile" in got.message
    assert (await states(control)) == {1: "live", 2: "rolling_out"}
    await replaced(control, 2, 1)
    done = await becomes(control, "Running", "Running")
    assert not done.HasField("rollout")

    async def settled() -> bool:
        return await states(control) == {1: "superseded", 2: "live"}

    await eventually(settled)
    told = [(verb, state.rollout) for verb, state in await service_facts(control)]
    shares = [r.share_percent if r else None for verb, r in told if verb == "rollout_changed"]
    assert shares == [100, None]
    first = next(r for verb, r in told if verb == "updated")
    assert first is not None
    assert (first.stable.number, first.share_percent, first.state) == (1, 20, "rolling")


async def test_a_bad_revision_is_taken_back_with_its_configuration(control: Control) -> None:
    """Paused by the first failure, then back: revision, configuration and environment are those of before."""
    await running(control, rollout={"revert_after_seconds": 0.2})
    env = [{"name": "MODEL", "value": "bad-hush"}]
    await update(control, {"metadata.cpu": 2, "containers": [FILE["containers"][0] | {"env": env}]})
    await control.hear("failed", replica("ocr-2-a", "failed", revision=2, cause="CrashLoop", message="exited with 1"))

    back = await becomes(control, "Running", "RolledBack")

    assert (back.current_version, back.latest_version, back.generation) == (1, 2, 3)
    assert "exited with 1" in back.message
    assert json.loads(back.service_config)["metadata"]["cpu"] == 1
    assert await states(control) == {1: "live", 2: "reverted"}
    told = await service_facts(control)
    pauses = [s.rollout.state for verb, s in told if verb == "rollout_changed" and s.rollout is not None]
    assert pauses == ["paused"]
    assert (told[-1][1].revision.number, told[-1][1].rollout) == (1, None)
    last = [f for f in await control.told() if f.verb == "rollout_changed"][-1]
    assert (last.cause.reason, last.cause.actor) == ("RolledBack", "control")
    why = await control.services().Explain(common_pb2.ExplainRequest(name="ocr"), metadata=control.auth)
    assert any(line.code == "RolledBack" and "exited with 1" in line.message for line in why.lines)

    third = await update(control, {"metadata.memory": 256})
    assert (third.current_version, third.cpu, third.memory) == (3, 1.0, 256)
    ask = control_pb2.GetEnvironmentRequest(service="ocr", revision=3)
    found = await control.as_process("agent").GetEnvironment(ask)
    assert dict(found.env) == {"MODEL": "env-value-hush"}


async def test_somebody_pauses_resumes_and_reverts(control: Control) -> None:
    await running(control)
    assert (await refused(rollout(control, "pause"))).code == "NO_ROLLOUT"
    await update(control, {"metadata.cpu": 2})
    held = await rollout(control, "pause", idempotency_key="p")
    assert (held.rollout.state, held.rollout.reason) == ("paused", "PausedByUser")
    assert (await rollout(control, "pause", idempotency_key="p")).generation == held.generation
    await control.hear("failed", replica("ocr-2-a", "failed", revision=2, cause="CrashLoop", message="exited with 1"))
    paused = await becomes(control, "Updating", "RolloutPaused")
    assert not paused.rollout.HasField("revert_time")

    on = await rollout(control, "resume")
    assert (on.rollout.state, on.rollout.failed) == ("rolling", 0)
    rolls = await becomes(control, "Updating", "RollingOut")
    assert rolls.rollout.state == "rolling", "what had failed before is forgiven"
    gone = await rollout(control, "revert")
    assert (gone.current_version, gone.generation) == (1, 5)
    assert (await becomes(control, "Running", "RolledBack")).current_version == 1
    assert isinstance(await refused(rollout(control, "stop")), InvalidInput)
    assert isinstance(await refused(rollout(control, "revert")), Conflict)
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert [r.action for r in audit.records[:3]] == ["Services.ChangeRollout"] * 3
    assert json.loads(audit.records[0].after_json)["revision"] == 1


async def test_switching_back_keeps_what_is_of_no_revision(control: Control) -> None:
    """Revision 1's content and environment, with the scaling, labels and token of now; changed sources are named."""
    code = control.directory / "code"
    code.mkdir()
    (code / "app.py").write_text("one")
    storage = [{"mount_path": "/code", "local": {"path": str(code)}},
               {"mount_path": "/data", "local": {"path": str(code), "readOnly": False}}]  # fmt: skip
    first = await running(control, storage=storage)
    (code / "app.py").write_text("two")
    env = [{"name": "MODEL", "value": "second-hush"}]
    containers = [FILE["containers"][0] | {"env": env, "command": "python other.py"}]
    await update(control, {"containers": containers, "token": "another-token", "labels": {"team": "x"}})
    await replaced(control, 2, 1)
    await becomes(control, "Running", "Running")
    missing = await refused(switch(control, 9))
    assert isinstance(missing, NotFound)
    assert missing.message == "revision 9 of ocr has never been; there are 1, 2"

    back = await switch(control, 1)

    assert (back.current_version, back.latest_version, back.rollout.from_revision) == (1, 2, 2)
    assert (back.token, back.labels[0].label_value) == ("another-token", "x")
    config = json.loads(back.service_config)
    assert (config["containers"][0]["command"], config["labels"]) == ("python app.py", {"team": "x"})
    assert [w.split()[0] for w in back.warnings] == ["storage[0]", "storage[1]"]
    assert first.sources[0].digest in back.warnings[0]
    assert [s.digest for s in back.sources] == [s.digest for s in first.sources]
    assert (await switch(control, 1)).generation == back.generation
    state = (await service_facts(control))[-1][1]
    nonce = state.revision.restart_nonce
    assert nonce > 0, "its replicas are gone: new ones are of a restart of their own"
    for name in "cd":
        await control.hear("ready", replica(f"ocr-1-{name}", "ready", restart_nonce=nonce))
    await control.hear("applied", route("ocr-1-c", "ocr-1-d"))
    for name in "ab":
        await control.hear("stopped", replica(f"ocr-2-{name}", "stopped", revision=2))
    await becomes(control, "Running", "Running")

    async def settled() -> bool:
        return await states(control) == {1: "live", 2: "superseded"}

    await eventually(settled)
    kept = await update(control, {"metadata.cpu": 2})
    found = await control.as_process("agent").GetEnvironment(
        control_pb2.GetEnvironmentRequest(service="ocr", revision=kept.current_version)
    )
    assert (kept.current_version, dict(found.env)) == (3, {"MODEL": "env-value-hush"})


async def test_a_revision_whose_source_is_gone_is_not_switched_to(control: Control) -> None:
    code = control.directory / "code"
    code.mkdir()
    await running(control, storage=[{"mount_path": "/code", "local": {"path": str(code)}}])
    await update(control, {"storage": []})
    await replaced(control, 2, 1)
    await becomes(control, "Running", "Running")
    code.rmdir()

    error = await refused(switch(control, 1))

    assert (type(error), error.code) == (Refused, "SOURCE_MISSING")
    assert "storage[0].local.path" in error.message
    assert (await get(control)).current_version == 2


class Room(scheduler_pb2_grpc.PlacementServicer):
    """A scheduler that has room, or not."""

    def __init__(self) -> None:
        self.fits, self.asked = False, list[RevisionSpec]()

    async def Fits(self, request: scheduler_pb2.FitsRequest, context: Any) -> scheduler_pb2.FitsResponse:
        self.asked.append(msgspec.msgpack.decode(request.revision_msgpack, type=RevisionSpec))
        message = "" if self.fits else "node n1: cpu short by 1.5"
        return scheduler_pb2.FitsResponse(fits=self.fits, reason="" if self.fits else "NoCapacity", message=message)


@asynccontextmanager
async def a_scheduler(control: Control) -> AsyncIterator[Room]:
    room = Room()
    server = Server(control.settings.scheduler_addr, Keyring(control.settings.peers_file))
    server.add(scheduler_pb2_grpc.add_PlacementServicer_to_server, room, "easel.internal.v1.Placement")
    await server.start()
    try:
        yield room
    finally:
        await server.stop(0)


async def test_an_update_that_would_interrupt_is_refused_unless_asked_for(control: Control) -> None:
    async with a_scheduler(control) as room:
        await running(control)
        restart = services_pb2.RestartServiceRequest(name="ocr")
        for call in (update(control, {"metadata.cpu": 2}), update(control, {"metadata.cpu": 2}, dry_run=True),
                     control.services().Restart(restart, metadata=control.auth)):  # fmt: skip
            error = await refused(call)
            assert (type(error), error.code) == (Refused, "WOULD_INTERRUPT")
            assert "node n1: cpu short by 1.5" in error.message
            assert "--allow-interruption" in error.hint
        assert sorted(s.resources.cpu for s in room.asked) == [1.0, 2.0, 2.0]
        assert (await get(control)).generation == 1

        room.fits = True
        fits = await update(control, {"metadata.cpu": 2}, dry_run=True)
        assert fits.rollout.to_revision == 2
        room.fits = False
        assert (await update(control, {"labels": {"a": "b"}})).generation == 2, "what makes no replica needs no room"
        assert (await update(control, {"metadata.rolling_strategy.max_unavailable": 1})).generation == 3
        asked = len(room.asked)
        begun = await update(control, {"metadata.cpu": 2})
        assert (begun.rollout.to_revision, len(room.asked)) == (2, asked)


async def test_interruption_that_was_asked_for_is_told_to_the_scheduler(control: Control) -> None:
    """Also for a rollout that is on and found no room; asked again, nothing else changes."""
    async with a_scheduler(control) as room:
        await running(control)
        room.fits = True
        await update(control, {"metadata.cpu": 2})
        await control.hear("pending", replica("ocr-2-a", "pending", revision=2, cause="NoCapacity", message="no cpu"))
        waits = await becomes(control, "Updating", "NoCapacity")
        assert "--allow-interruption" in waits.message
        assert waits.rollout.reason == "NoCapacity"

        again = await update(control, {"metadata.cpu": 2}, allow_interruption=True)

    assert (again.current_version, again.rollout.to_revision) == (2, 2)

    async def told() -> bool:
        newest: ServiceState = (await service_facts(control))[-1][1]
        return newest.rollout is not None and newest.rollout.interrupt

    await eventually(told)


async def test_a_silent_scheduler_refuses_nothing(control: Control) -> None:
    await running(control)

    assert (await update(control, {"metadata.cpu": 2})).rollout.to_revision == 2
