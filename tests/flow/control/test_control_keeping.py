"""Copies, locks, comparisons, and services that nobody uses, on the real stores."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from easel_contracts.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from easel_contracts.facts import ScaleState
from easel_control.decide.rollout import begun
from easel_control.expiry import Expiry
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.memberships import Memberships
from easel_control.store import Store
from easel_control.vault import open_vault
from easel_kit.testing import ManualClock, eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, groups_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_mutations import FILE, create, refused, service_facts, stopped, text
from tests.flow.control.test_control_rollouts import update
from tests.flow.control.test_control_status import becomes, get


async def clone(control: Control, new_name: str, config: str = "", **more: Any) -> services_pb2.Service:
    request = services_pb2.CloneServiceRequest(name="ocr", new_name=new_name, config=config, **more)
    answer: services_pb2.Service = await control.services().Clone(request, metadata=control.auth)
    return answer


async def lock(control: Control, kind: str) -> services_pb2.Service:
    request = services_pb2.LockServiceRequest(name="ocr", lock=kind)
    answer: services_pb2.Service = await control.services().Lock(request, metadata=control.auth)
    return answer


async def test_a_clone_has_everything_but_name_and_token(control: Control) -> None:
    first = await create(control, text(labels={"team": "x"}))
    made = await clone(control, "ocr_two", '{"metadata.cpu": 3}', idempotency_key="c")

    assert (made.service_name, made.cpu, made.memory, made.status) == ("ocr_two", 3.0, 512, "Creating")
    assert made.token not in ("", first.token)
    assert made.labels[0].label_value == "x"
    ask = control_pb2.GetEnvironmentRequest(service="ocr_two", revision=1)
    found = await control.as_process("agent").GetEnvironment(ask)
    assert dict(found.env) == {"MODEL": "env-value-hush"}
    assert (await clone(control, "ocr_two", '{"metadata.cpu": 3}', idempotency_key="c")).token == made.token
    assert isinstance(await refused(clone(control, "ocr_two")), AlreadyExists)
    assert isinstance(await refused(clone(control, "Ocr-Two")), InvalidInput)
    assert isinstance(await refused(clone(control, "ocr_tri", '{"metadata.name": "other"}')), InvalidInput)
    assert isinstance(await refused(clone(control, "ocr_tri", '{"metadata.cpus": 3}')), InvalidInput)
    gone = services_pb2.CloneServiceRequest(name="nope", new_name="ocr_tri")
    assert isinstance(await refused(control.services().Clone(gone, metadata=control.auth)), NotFound)
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr_two"), metadata=control.auth)
    assert [r.action for r in audit.records] == ["Services.Clone"]


async def test_locks_refuse_what_they_say(control: Control) -> None:
    await create(control)
    services = control.services()
    delete, stop = services_pb2.DeleteServiceRequest(name="ocr"), services_pb2.StopServiceRequest(name="ocr")

    assert (await lock(control, "dangerous")).safety_lock == "dangerous"
    for call in (services.Delete(delete, metadata=control.auth), services.Stop(stop, metadata=control.auth)):
        error = await refused(call)
        assert (type(error), error.code) == (Conflict, "LOCKED")
        assert error.hint == "`easel lock ocr none` takes the lock off"
    assert (await update(control, {"labels": {"a": "b"}})).safety_lock == "dangerous"

    await lock(control, "all")
    restart = services_pb2.RestartServiceRequest(name="ocr")
    scale = services_pb2.ScaleServiceRequest(name="ocr", instance=2)
    version = services_pb2.SwitchRevisionRequest(name="ocr", revision=1)
    for call in (services.Restart(restart, metadata=control.auth), services.Scale(scale, metadata=control.auth),
                 services.SwitchRevision(version, metadata=control.auth), update(control, {"metadata.cpu": 2}),
                 update(control, {"metadata.cpu": 2}, dry_run=True)):  # fmt: skip
        assert (await refused(call)).code == "LOCKED"
    assert isinstance(await refused(lock(control, "some")), InvalidInput)
    await lock(control, "none")
    assert (await services.Delete(delete, metadata=control.auth)).status == "Deleting"
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert [json.loads(r.after_json)["lock"] for r in audit.records if r.action == "Services.Lock"] == [
        "none", "all", "dangerous",
    ]  # fmt: skip


async def test_revisions_are_compared_without_showing_values(control: Control) -> None:
    code = control.directory / "code"
    code.mkdir()
    (code / "app.py").write_text("one")
    storage = [{"mount_path": "/code", "local": {"path": str(code)}}]
    await create(control, text(storage=storage))
    (code / "app.py").write_text("two")
    env = [{"name": "MODEL", "value": "other-hush"}, {"name": "NEW", "value": "new-hush"}]
    containers = [FILE["containers"][0] | {"env": env}]
    await update(control, {"containers": containers, "metadata": {"cpu": 2, "instance": 2}})

    ask = services_pb2.DiffRevisionsRequest(name="ocr", base=1, other=2)
    found = await control.services().DiffRevisions(ask, metadata=control.auth)

    told = {d.path: (d.before, d.after) for d in found.differences}
    assert told.pop("storage[0]")[0].startswith('"sha256:')
    assert told == {
        "metadata.cpu": ("1", "2"),
        "containers[0].env[MODEL].value": ('"(not shown)"', '"(not shown)"'),
        "containers[0].env[NEW].value": ("", '"(not shown)"'),
    }
    assert "hush" not in str(found)
    bad = services_pb2.DiffRevisionsRequest(name="ocr", base=1, other=3)
    assert (await refused(control.services().DiffRevisions(bad, metadata=control.auth))).code == "NO_SUCH_REVISION"


async def test_old_revisions_are_forgotten_but_not_what_runs(control: Control) -> None:
    """Beyond 100 the oldest go; the present one and the stable one of a rollout stay, however old."""
    await create(control)
    store = Store(control.process.db, control.process.clock)
    row = await store.get("default", "ocr")
    first = await store.revision("default", "ocr", 1)
    assert row is not None
    assert first is not None
    rollout = begun(replace(row.revision, number=3), row.rolling, control.process.clock.now(), interrupt=False)
    async with control.process.db.transaction() as connection:
        for number in range(2, 106):
            await store.add_revision(connection, replace(first, number=number, state="superseded"))
        await store.update(connection, replace(row, row_version=row.row_version + 1, rollout=rollout))

    await store.prune(24.0)

    assert [r.number for r in await store.revisions("default", "ocr")] == [1, 3, *range(6, 106)]
    missing = services_pb2.SwitchRevisionRequest(name="ocr", revision=2)
    error = await refused(control.services().SwitchRevision(missing, metadata=control.auth))
    assert error.code == "NO_SUCH_REVISION"
    assert "and 82 older ones" in error.message


async def test_a_service_at_zero_is_running_and_never_expires(control: Control) -> None:
    await create(control, text(autoscaler={"min": 0, "max": 2, "strategies": {"qps": 5}}))
    await control.hear("ready", replica("ocr-1-a", "ready"))
    await control.hear("applied", route("ocr-1-a"))
    await becomes(control, "Running", "Running")
    none = ScaleState(service="ocr", generation=1, number=1, before=1, wanted=0, reason="Idle", message="idle")
    await control.hear("decided", none)
    await becomes(control, "Scaling", "ScalingIn")
    await control.hear("applied", route(holding=True))
    await control.hear("stopped", replica("ocr-1-a", "stopped"))

    zero = await becomes(control, "Running", "ScaledToZero")

    assert (zero.total_instance, zero.running_instance) == (0, 0)
    row = await Store(control.process.db, control.process.clock).get("default", "ocr")
    assert row is not None
    assert row.not_running_since is None
    await control.hear("decided", ScaleState(service="ocr", generation=1, number=2, before=0, wanted=1,
                                             reason="Woken", message="a request waits"))  # fmt: skip
    await becomes(control, "Running", "WakingUp")


def expiry_at(control: Control, now: datetime) -> Expiry:
    clock, database = ManualClock(now), control.process.db
    tokens = GroupTokens(open_vault(control.settings.home / "master.key"))
    memberships = Memberships(GroupStore(database, clock), tokens, clock)
    return Expiry("default", Store(database, clock), memberships, control.process.leases, clock, lambda name: None)


async def test_an_unused_service_is_warned_of_and_deleted(control: Control) -> None:
    """At 150 and 173 days it is told, once each; at 180 it goes as by `delete`, by control's hand, out of its group."""
    await create(control, text(**{"metadata.group": "letters"}))
    await control.services().Stop(services_pb2.StopServiceRequest(name="ocr"), metadata=control.auth)
    await eventually(lambda: stopped(control))
    since = (await get(control)).create_time.ToDatetime(tzinfo=control.process.clock.now().tzinfo)

    async def after(days: float) -> list[str]:
        expiry = expiry_at(control, since + timedelta(days=days, hours=1))
        for _ in range(2):
            await expiry.once()

        async def relayed() -> bool:
            async with control.process.db.connection() as connection:
                return int(await connection.fetchval("SELECT count(*) FROM outbox")) == 0

        await eventually(relayed)
        return [f.cause.message for f in await control.told() if f.verb == "expiry_warned"]

    assert await after(149) == []
    assert len(await after(150)) == 1
    assert len(await after(160)) == 1
    warned = await after(173)
    assert len(warned) == 2
    assert f"it will be deleted on {since + timedelta(days=180):%Y-%m-%d}" in warned[1]
    await lock(control, "all")
    kept = await after(200)
    assert len(kept) == 3
    assert "its lock (all) keeps it" in kept[2]
    assert (await get(control)).status == "Stopped"
    await lock(control, "none")
    assert len(await after(0.5)) == 3, "somebody has just changed it"
    await after(201)
    groups = await control.groups().List(groups_pb2.ListGroupsRequest(), metadata=control.auth)
    assert not groups.groups

    async def gone() -> bool:
        await control.hear("removed", route(state="removed"))
        listed = await control.services().List(services_pb2.ListServicesRequest(), metadata=control.auth)
        return not listed.services

    await eventually(gone)
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert (audit.records[0].action, audit.records[0].actor) == ("Services.Delete", "control")
    told = await eventually(lambda: service_facts(control))
    assert told[-1][0] == "deleted"
