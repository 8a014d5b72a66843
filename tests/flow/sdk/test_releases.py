"""Revisions, rollouts, clones, locks and single replicas by the async client, against the real gRPC APIs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Difference, Revision, Rollout, Service
from easel_sdk import Client
from easel_sdk.errors import Conflict, NotFound, ServiceFailed, TimedOut
from tests.flow.sdk.platform import KEY, Platform

ROLLING = Rollout(from_revision=1, to_revision=2, share_percent=20, state="rolling")


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """A client of the platform, which has the service `ocr`."""
    async with Client(platform.server, KEY) as found:
        await found.services.create({"name": "ocr"})
        yield found


def share(percent: int) -> object:
    """The rollout goes on."""

    def step(service: Service) -> None:
        service.rollout.share_percent = percent

    return step


def paused(service: Service) -> None:
    """The rollout stops; it reverts by itself later."""
    service.rollout.MergeFrom(Rollout(state="paused", reason="ReplicaFailed", message="1 of 1 new replicas failed"))
    service.rollout.revert_time.FromSeconds(2_000_000_000)


def stuck(service: Service) -> None:
    """The rollout stops until somebody acts."""
    service.rollout.MergeFrom(Rollout(state="paused", reason="PausedByUser", message="pause was asked for"))


def over(service: Service) -> None:
    """The rollout has ended with the new revision."""
    service.ClearField("rollout")
    service.status = "Running"


def reverted(service: Service) -> None:
    """The rollout has ended with the old revision."""
    over(service)
    service.current_version = 1


async def test_wait_follows_a_rollout_to_its_end(platform: Platform, client: Client) -> None:
    """Running with a rollout on is not the end: every wave is told, the end is without one."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = ["Running", share(50), share(100), over]  # type: ignore[list-item]

    told = [p async for p in client.watch_progress(service, timeout_s=30)]

    assert [p.rollout.share_percent if p.rollout else None for p in told] == [20, 50, 100, None]
    assert [p.done for p in told] == [False, False, False, True]


async def test_wait_raises_when_the_revision_was_reverted(platform: Platform, client: Client) -> None:
    """The old revision runs on, which is not what was waited for: why, and what the new one printed."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = [paused, reverted]
    platform.revisions = [Revision(number=1, state="live"), Revision(number=2, state="reverted")]
    platform.replicas = [
        Replica(name="ocr-1-aaaaa", revision=1, status="failed", last_log_lines=["another trouble"]),
        Replica(name="ocr-2-bbbbb", revision=2, status="failed", last_log_lines=["ImportError: no numpy"]),
    ]

    with pytest.raises(ServiceFailed) as found:
        await client.wait(service, timeout_s=30)

    assert found.value.code == "ReplicaFailed"
    assert found.value.message == ("revision 2 of ocr was reverted; revision 1 serves on: 1 of 1 new replicas failed")
    assert "easel revisions ocr --diff 1 2" in found.value.hint
    assert found.value.log_lines == ("ImportError: no numpy",)


async def test_a_revert_without_a_pause_is_seen_too(platform: Platform, client: Client) -> None:
    """Asked for, or between two looks: what the rollout waited for before is not the reason."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = ["Updating", reverted]
    platform.revisions = [Revision(number=2, state="reverted")]
    platform.services["ocr"].rollout.message = "Total 2, Pending 1, Running 1; wave 1 of 3"
    platform.services["ocr"].message = "Total 2, Pending 1, Running 1; owner took it back"

    with pytest.raises(ServiceFailed) as found:
        await client.wait(service, timeout_s=30)
    assert (found.value.code, found.value.message) == (
        "RolledBack", "revision 2 of ocr was reverted; revision 1 serves on: owner took it back",
    )  # fmt: skip


async def test_a_restart_that_was_taken_back(platform: Platform, client: Client) -> None:
    """It has no revision of its own: the reason of the service tells."""
    platform.rollout = Rollout(from_revision=1, to_revision=1, share_percent=20, state="rolling")
    service = await client.services.restart("ocr")

    def back(service: Service) -> None:
        over(service)
        service.reason = "RolledBack"
        service.message = "Service is running; the restart of revision 1 was given up: exit code 1"

    platform.path["ocr"] = [back]

    with pytest.raises(ServiceFailed) as found:
        await client.wait(service, timeout_s=30)
    assert found.value.message == (
        "the restart of revision 1 of ocr was reverted; it serves on: "
        "the restart of revision 1 was given up: exit code 1"
    )
    assert "--diff" not in found.value.hint


async def test_a_scale_after_a_revert_is_no_failure(platform: Platform, client: Client) -> None:
    """The service still says that something was taken back, but this change began no rollout."""
    service = await client.services.scale("ocr", 3)
    platform.services["ocr"].reason = "RolledBack"
    platform.path["ocr"] = ["Running"]

    assert await client.wait(service, timeout_s=30) is not None


async def test_a_rollout_at_zero_replicas_is_not_waited_for(platform: Platform, client: Client) -> None:
    """It goes on with the next request, which may be never."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.services["ocr"].reason = "ScaledToZero"
    platform.path["ocr"] = ["Running"]

    told = [p async for p in client.watch_progress(service, timeout_s=30)]

    assert [(p.done, p.at_zero, p.rollout is not None) for p in told] == [(True, True, True)]


async def test_an_older_revision_asked_for_is_no_failure(platform: Platform, client: Client) -> None:
    """After a switch the newest revision may be a reverted one: only the one asked for counts."""
    platform.services["ocr"].latest_version = 3
    platform.revisions = [Revision(number=3, state="reverted")]
    service = await client.services.switch_revision("ocr", 2)
    platform.path["ocr"] = ["Running"]

    found = await client.wait(service, timeout_s=30)

    assert found is not None
    assert found.current_version == 2


async def test_a_revision_that_another_change_replaced(platform: Platform, client: Client) -> None:
    """What runs is not what was waited for, and no fault of it."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.revisions = [Revision(number=2, state="superseded"), Revision(number=3, state="live")]

    def newer(service: Service) -> None:
        over(service)
        service.current_version = 3

    platform.path["ocr"] = [newer]

    with pytest.raises(ServiceFailed, match="gave way to revision 3") as found:
        await client.wait(service, timeout_s=30)
    assert found.value.code == "SUPERSEDED"


async def test_a_pause_without_end_ends_the_wait(platform: Platform, client: Client) -> None:
    """Nothing more would happen; `over_pauses` waits for whoever resumes it."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = [stuck]

    with pytest.raises(ServiceFailed, match="paused at 20 %: pause was asked for") as found:
        await client.wait(service, timeout_s=30)
    assert "`easel rollout ocr resume` or `easel rollout ocr revert`" in found.value.hint

    platform.path["ocr"] = [stuck, over]
    assert await client.wait(service, timeout_s=30, over_pauses=True) is not None


async def test_timing_out_names_the_rollout(platform: Platform, client: Client) -> None:
    """What it was waiting for."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = [paused]

    with pytest.raises(TimedOut, match="the rollout is paused: 1 of 1 new replicas failed"):
        await client.wait(service, timeout_s=0.3)


async def test_at_zero_replicas_a_service_runs(platform: Platform, client: Client) -> None:
    """A request would be held and answered."""
    service = await client.services.start("ocr")

    def at_zero(service: Service) -> None:
        service.MergeFrom(Service(status="Running", reason="ScaledToZero"))
        service.total_instance = service.running_instance = 0

    platform.path["ocr"] = [at_zero]

    assert (await client.wait(service, timeout_s=30)) is not None


async def test_requests_carry_what_was_asked(platform: Platform, client: Client) -> None:
    """Every field of the new calls, and a key that makes them safe to repeat."""
    platform.services["ocr"].rollout.CopyFrom(ROLLING)
    platform.replicas = [Replica(name="a"), Replica(name="b")]
    platform.differences = [Difference(path="metadata.cpu", before="1", after="2")]

    await client.services.update("ocr", {"metadata": {"cpu": 2}}, allow_interruption=True)
    await client.services.restart("ocr", allow_interruption=True)
    await client.services.switch_revision("ocr", 4, allow_interruption=True)
    await client.services.change_rollout("ocr", "pause")
    await client.services.clone("ocr", "next", {"metadata": {"cpu": 4}})
    await client.services.lock("ocr", "all")
    differences = await client.services.diff_revisions("ocr", 3, 4)
    restarted = await client.replicas.restart("ocr", ["b"], soft=True)
    isolated = await client.replicas.isolate("ocr", "a")
    back = await client.replicas.isolate("ocr", "a", isolated=False)

    asked = {name: request for name, request in platform.calls if "." in name}
    assert asked["Services.Update"].allow_interruption
    assert asked["Services.Restart"].allow_interruption
    assert (asked["Services.SwitchRevision"].revision, asked["Services.SwitchRevision"].allow_interruption) == (4, True)
    assert asked["Services.ChangeRollout"].action == "pause"
    assert (asked["Services.Clone"].name, asked["Services.Clone"].new_name) == ("ocr", "next")
    assert json.loads(asked["Services.Clone"].config) == {"metadata": {"cpu": 4}}
    assert asked["Services.Lock"].lock == "all"
    assert (asked["Services.DiffRevisions"].base, asked["Services.DiffRevisions"].other) == (3, 4)
    assert [d.path for d in differences] == ["metadata.cpu"]
    assert (asked["Replicas.Restart"].soft, asked["Replicas.Restart"].now) == (True, False)
    assert [r.name for r in restarted] == ["b"]
    assert (isolated.isolated, back.isolated) == (True, False)
    mutations = ("Update", "Restart", "SwitchRevision", "ChangeRollout", "Clone", "Lock")
    keys = [asked[f"Services.{name}"].idempotency_key for name in mutations]
    keys += [asked[f"Replicas.{name}"].idempotency_key for name in ("Restart", "Isolate")]
    assert [len(key) for key in keys] == [36] * len(keys)
    assert len(set(keys)) == len(keys)


async def test_a_clone_without_changes_sends_none(platform: Platform, client: Client) -> None:
    """No configuration is laid over the original's."""
    await client.services.clone("ocr", "next")

    assert platform.asked("Services.Clone")[0].config == ""


async def test_a_locked_service_is_refused_with_the_way_out(client: Client) -> None:
    """Code and hint as the platform gives them."""
    await client.services.lock("ocr", "dangerous")

    with pytest.raises(Conflict) as found:
        await client.services.delete("ocr")
    assert (found.value.code, found.value.hint) == ("LOCKED", "`easel lock ocr none`")


async def test_the_autoscaler_is_merged_in(platform: Platform, client: Client) -> None:
    """Only the section; a list of targets takes the place of those that are stored."""
    await client.services.set_autoscaler("ocr", {"min": 0, "max": 5, "strategies": {"qps": 10}})
    platform.services["ocr"].service_config = json.dumps({"autoscaler": {"min": 0, "strategies": {"qps": 10}}})
    listed = [{"metricName": "concurrency", "threshold": 4}]
    await client.services.set_autoscaler("ocr", {"scaleStrategies": listed})
    await client.services.remove_autoscaler("ocr")

    sent = [json.loads(request.config) for request in platform.asked("Services.Update")]
    assert sent == [
        {"autoscaler": {"min": 0, "max": 5, "strategies": {"qps": 10}}},
        {"autoscaler": {"scaleStrategies": listed, "strategies": None}},
        {"autoscaler": None},
    ]
    assert {request.update_type for request in platform.asked("Services.Update")} == {"merge"}


async def test_no_autoscaler_is_removed_where_there_is_none(platform: Platform, client: Client) -> None:
    """Nothing is changed."""
    await client.services.remove_autoscaler("ocr")

    assert platform.asked("Services.Update") == []


async def test_replacement_ends_when_successors_serve(platform: Platform, client: Client) -> None:
    """The old one is gone and as many as wanted are ready."""
    platform.services["ocr"].MergeFrom(Service(status="Running", wanted_instance=2))
    old, kept = Replica(name="a", status="ready", ready=True), Replica(name="b", status="ready", ready=True)
    coming = Replica(name="c", status="starting", message="starting")
    serving = Replica(name="c", status="ready", ready=True)
    platform.replicas_path = [[old, kept, coming], [kept, coming], [kept, serving]]

    looks = [look async for look in client.watch_replacement("ocr", [old], timeout_s=30)]

    assert [(look.left, look.done) for look in looks] == [(("a",), False), ((), False), ((), True)]


async def test_replacement_times_out_with_who_is_left(platform: Platform, client: Client) -> None:
    """By name."""
    platform.replicas = [Replica(name="a", status="draining")]

    with pytest.raises(TimedOut, match=r"after 0\.2 s a of ocr is not replaced"):
        async for _ in client.watch_replacement("ocr", [Replica(name="a")], timeout_s=0.2):
            pass


async def test_isolating_what_is_not_there(client: Client) -> None:
    """Not found."""
    with pytest.raises(NotFound):
        await client.replicas.isolate("ocr", "nothing")
