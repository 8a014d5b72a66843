"""Waiting for services and their rollouts by the async client, against the real gRPC APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Revision, Rollout, Service
from easel_sdk import Client
from easel_sdk.errors import ServiceFailed, TimedOut
from tests.flow.sdk.platform import KEY, Platform
from tests.flow.sdk.state import Step

ROLLING = Rollout(from_revision=1, to_revision=2, share_percent=20, state="rolling")


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """A client of the platform, which has the service `ocr`."""
    async with Client(platform.server, KEY) as found:
        await found.services.create({"name": "ocr"})
        yield found


def share(percent: int) -> Step:
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


async def test_wait_returns_when_it_serves(platform: Platform, client: Client) -> None:
    """Every state on the way is told; the last one is done."""
    service = platform.services["ocr"]
    platform.path["ocr"] = ["Creating", "Waiting", "Running"]

    told = [p async for p in client.watch_progress("ocr", generation=service.generation, timeout_s=30)]

    assert [p.service.status for p in told if p.service] == ["Creating", "Waiting", "Running"]
    assert [p.done for p in told] == [False, False, True]


async def test_wait_raises_the_reason_with_the_last_lines(platform: Platform, client: Client) -> None:
    """A service that failed says why, with what its program printed."""
    service = platform.services["ocr"]
    platform.path["ocr"] = ["Waiting", "Failed"]
    platform.replicas = [Replica(name="ocr-1-aaaaa", status="failed", reason="CrashLoop",
                                 last_log_lines=["Traceback", "ImportError: no module"])]  # fmt: skip

    with pytest.raises(ServiceFailed, match="exit code 1") as found:
        await client.wait("ocr", generation=service.generation, timeout_s=30)

    assert (found.value.code, found.value.log_lines[-1]) == ("CrashLoop", "ImportError: no module")


async def test_wait_does_not_take_the_state_before_the_change(platform: Platform, client: Client) -> None:
    """Running at an older generation is not what was asked for."""
    platform.path["ocr"] = ["Running"]
    platform.services["ocr"].observed_generation = 1

    with pytest.raises(TimedOut, match="ocr is not running after"):
        await client.wait("ocr", generation=2, timeout_s=0.3)


async def test_wait_for_deletion_ends_when_it_is_gone(client: Client) -> None:
    """Not found is the goal."""
    service = await client.services.delete("ocr")

    assert await client.wait("ocr", "deleted", generation=service.generation, timeout_s=5) is None


async def test_wait_follows_a_rollout_to_its_end(platform: Platform, client: Client) -> None:
    """Running with a rollout on is not the end: every wave is told, the end is without one."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    platform.path["ocr"] = ["Running", share(50), share(100), over]

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


async def test_timing_out_for_want_of_room_says_what_to_do(platform: Platform, client: Client) -> None:
    """The platform's own hint comes first."""
    platform.rollout = ROLLING
    service = await client.services.update("ocr", {"metadata": {"cpu": 2}})
    said = "Total 1, Pending 0, Running 1; no room on any node Hint: ask again with --allow-interruption"
    platform.services["ocr"].message = platform.services["ocr"].rollout.message = said

    with pytest.raises(TimedOut, match=r"no room on any node") as found:
        await client.wait(service, timeout_s=0.3)
    assert found.value.hint.startswith("ask again with --allow-interruption; it goes on: ")


async def test_at_zero_replicas_a_service_runs(platform: Platform, client: Client) -> None:
    """A request would be held and answered."""
    service = await client.services.start("ocr")

    def at_zero(service: Service) -> None:
        service.MergeFrom(Service(status="Running", reason="ScaledToZero"))
        service.total_instance = service.running_instance = 0

    platform.path["ocr"] = [at_zero]

    assert (await client.wait(service, timeout_s=30)) is not None
