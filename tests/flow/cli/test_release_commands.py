"""Revisions and rollouts by the command line."""

from __future__ import annotations

import json

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Difference, Revision, Rollout, Service, SourceDigest
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import Platform

ROLLING = Rollout(from_revision=3, to_revision=4, share_percent=20, state="rolling")
OLD = Replica(name="ocr-3-aaaaa", revision=3, status="ready", ready=True)
NEW = Replica(name="ocr-4-bbbbb", revision=4, status="starting")


@pytest.fixture(autouse=True)
def service(platform: Platform, easel: Easel) -> Service:
    """The service `ocr`, which runs revision 3."""
    easel("create", "-", input=json.dumps({"name": "ocr"}))
    found = platform.services["ocr"]
    found.MergeFrom(Service(status="Running", current_version=3, latest_version=3, wanted_instance=2))
    return found


def half(service: Service) -> None:
    """The second wave."""
    service.rollout.share_percent = 50


def over(service: Service) -> None:
    """The end: all replicas are new."""
    service.ClearField("rollout")
    service.status = "Running"


def paused(service: Service) -> None:
    """A replica failed; it reverts soon."""
    service.rollout.MergeFrom(Rollout(state="paused", failed=1, reason="ReplicaFailed", message="exit code 1"))
    service.rollout.revert_time.FromSeconds(2_000_000_000)


def reverted(service: Service) -> None:
    """The end: all replicas are old."""
    over(service)
    service.current_version = 3


def test_modify_wait_shows_every_wave(platform: Platform, easel: Easel) -> None:
    """Share, and replicas of both sides; then the end."""
    platform.rollout, platform.replicas = ROLLING, [OLD, NEW]
    platform.path["ocr"] = ["Updating", half, over]

    result = easel("modify", "ocr", "-Dmetadata.cpu=2", "--allow-interruption", "--wait", "--timeout", "30")

    assert result.exit_code == 0
    assert "Updating · revision 3 → 4, up to 20 % · old: 1 ready · new: 1 starting" in result.stderr
    assert "revision 3 → 4, up to 50 % · old: 1 ready · new: 1 starting" in result.stderr
    assert "Service is running" in result.stderr
    assert platform.asked("Services.Update")[0].allow_interruption


def test_restart_wait_fails_when_it_stays_paused(platform: Platform, easel: Easel) -> None:
    """Exit code 1, the reason, and what can be done; a restart's replicas are told apart, too."""
    platform.rollout = Rollout(from_revision=3, to_revision=3, share_percent=20, state="rolling")
    platform.replicas = [OLD, Replica(name="ocr-3-ccccc", revision=3, restart_nonce=1, status="fetching")]

    def stuck(service: Service) -> None:
        service.rollout.MergeFrom(Rollout(state="paused", reason="PausedByUser", message="pause was asked for"))

    platform.path["ocr"] = ["Updating", stuck]

    result = easel("restart", "ocr", "--wait", "--timeout", "30")

    assert result.exit_code == 1
    assert "restart of revision 3, up to 20 % · old: 1 ready · new: 1 fetching" in result.stderr
    assert "the rollout of ocr to revision 3 is paused at 20 %: pause was asked for (PausedByUser)" in result.stderr
    assert "easel rollout ocr resume" in result.stderr


def test_modify_wait_fails_when_it_was_reverted(platform: Platform, easel: Easel) -> None:
    """Exit code 1 with the reason of the pause before, the last lines of the new revision, and how to compare."""
    platform.rollout = ROLLING
    platform.path["ocr"] = [paused, reverted]
    platform.revisions = [Revision(number=4, state="reverted")]
    platform.replicas = [Replica(name="x", revision=4, status="failed", last_log_lines=["ImportError: no numpy"])]

    result = easel("modify", "ocr", "-Dmetadata.cpu=2", "--wait", "--timeout", "30")

    assert result.exit_code == 1
    assert "paused at 20 %, 1 failed, reverts at " in result.stderr
    assert "revision 4 of ocr was reverted; revision 3 serves on: exit code 1 (ReplicaFailed)" in result.stderr
    assert "  | ImportError: no numpy" in result.stderr
    assert "easel revisions ocr --diff 3 4" in result.stderr


def test_without_wait_the_way_to_follow_is_named(platform: Platform, easel: Easel) -> None:
    """The rollout goes on by itself."""
    platform.rollout = ROLLING

    assert "`easel rollout ocr --follow` shows how far it is" in easel("restart", "ocr").stderr


def test_version_switches_and_warns(platform: Platform, easel: Easel) -> None:
    """EASCMD's spelling; sources that may have changed are named."""
    platform.warnings = ["storage[0] is mutable: its content may differ from what revision 2 ran"]
    platform.path["ocr"] = ["Running"]

    result = easel("version", "ocr", "2", "--allow-interruption", "--wait", "--timeout", "30")

    request = platform.asked("Services.SwitchRevision")[0]
    assert (result.exit_code, request.revision, request.allow_interruption) == (0, 2, True)
    assert "warning: storage[0] is mutable" in result.stderr
    assert "Service is running" in result.stderr


def test_version_without_a_number(platform: Platform, easel: Easel) -> None:
    """Bad input, with the way to find one."""
    result = easel("version", "ocr")

    assert result.exit_code == 2
    assert "`easel revisions ocr` lists them" in result.stderr
    assert platform.asked("Services.SwitchRevision") == []


def test_revisions_as_a_table(platform: Platform, easel: Easel) -> None:
    """Number, state, which is present, and the digests of its sources."""
    platform.revisions = [
        Revision(number=4, state="reverted"),
        Revision(number=3, state="live", current=True,
                 sources=[SourceDigest(source="storage[0]", digest="sha256:0123456789abcdef")]),
    ]  # fmt: skip

    rows = [line.split() for line in easel("revisions", "ocr").stdout.splitlines()]

    assert rows[0] == ["VERSION", "STATE", "CURRENT", "CREATETIME", "SOURCES"]
    assert rows[1][:3] == ["4", "reverted", "-"]
    assert rows[2] == ["3", "live", "yes", "-", "storage[0]", "sha256:0123456789ab"]
    assert json_of(easel("revisions", "ocr", "-o", "json"))[1]["current"] is True


def test_revisions_compared(platform: Platform, easel: Easel) -> None:
    """Path, before, after; a dash where a key is not there."""
    platform.differences = [Difference(path="metadata.cpu", before="1", after="2"),
                            Difference(path="storage[0]", after='"sha256:ff"')]  # fmt: skip

    table = easel("revisions", "ocr", "--diff", "3", "4").stdout.splitlines()

    assert [line.split() for line in table] == [
        ["PATH", "BEFORE", "AFTER"], ["metadata.cpu", "1", "2"], ["storage[0]", "-", '"sha256:ff"'],
    ]  # fmt: skip
    assert easel("revisions", "ocr", "--diff", "3", "4", "-o", "name").stdout == "metadata.cpu\nstorage[0]\n"
    assert json_of(easel("revisions", "ocr", "--diff", "3", "4", "-o", "json"))[0]["before"] == "1"
    assert easel("revisions", "ocr", "--diff", "3").exit_code == 2


def test_revisions_that_do_not_differ(easel: Easel) -> None:
    """Said, and no failure."""
    result = easel("revisions", "ocr", "--diff", "3", "4")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "revisions 3 and 4 of ocr do not differ" in result.stderr


def test_rollout_status(platform: Platform, easel: Easel, service: Service) -> None:
    """From, to, share, replicas of both sides, reason, and when it reverts."""
    service.rollout.CopyFrom(ROLLING)
    paused(service)
    platform.replicas = [OLD, NEW]

    shown = dict(line.split(None, 1) for line in easel("rollout", "ocr").stdout.splitlines())
    found = json_of(easel("rollout", "ocr", "status", "-o", "json"))

    assert shown["Rollout"] == "revision 3 → 4"
    assert shown["State"] == "paused"
    assert shown["Share"] == "up to 20 % of 2 replicas may be new"
    assert (shown["Old"], shown["New"], shown["Failed"]) == ("1 ready", "1 starting", "1")
    assert (shown["Reason"], shown["Message"]) == ("ReplicaFailed", "exit code 1")
    assert shown["Reverts"].startswith("2033-05-1")
    assert (found["rollout"]["old"], found["rollout"]["new"]) == ({"ready": 1}, {"starting": 1})
    assert found["rollout"]["revert_time"].startswith("2033-05-18T")


def test_no_rollout(easel: Easel) -> None:
    """No failure: which revision runs."""
    result = easel("rollout", "ocr", "--follow")

    assert result.exit_code == 0
    assert "no rollout is on: ocr is Running at revision 3" in result.stderr
    assert json_of(easel("rollout", "ocr", "-o", "json"))["rollout"] is None


def test_rollout_follow_ends_with_it(platform: Platform, easel: Easel, service: Service) -> None:
    """Over a pause that somebody ends; exit code 0 for the new revision, 1 for the old one."""
    service.rollout.CopyFrom(ROLLING)
    service.current_version = 4

    def stuck(service: Service) -> None:
        service.rollout.state = "paused"

    platform.path["ocr"] = ["Updating", stuck, half, over]
    followed = easel("rollout", "ocr", "--follow", "--timeout", "30")
    service.rollout.CopyFrom(ROLLING)
    platform.path["ocr"] = ["Updating", reverted]
    platform.revisions = [Revision(number=4, state="reverted")]
    failed = easel("rollout", "ocr", "--follow", "--timeout", "30")

    assert followed.exit_code == 0
    assert "paused at 20 %" in followed.stderr
    assert failed.exit_code == 1
    assert "revision 4 of ocr was reverted" in failed.stderr


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_rollout_actions(platform: Platform, easel: Easel, service: Service, action: str) -> None:
    """Sent, said, and the rollout is shown as it is then."""
    service.rollout.CopyFrom(ROLLING)

    result = easel("rollout", "ocr", action)

    assert platform.asked("Services.ChangeRollout")[0].action == action
    assert f"[OK] the rollout of ocr: {action}" in result.stderr
    assert "revision 3 → 4" in result.stdout


def test_rollout_revert_is_what_was_asked_for(platform: Platform, easel: Easel, service: Service) -> None:
    """Waiting for it ends with exit code 0."""
    service.rollout.CopyFrom(ROLLING)
    service.current_version = 4
    platform.revisions = [Revision(number=4, state="reverted")]
    platform.path["ocr"] = ["Running"]

    result = easel("rollout", "ocr", "revert", "--wait", "--timeout", "30")

    assert result.exit_code == 0
    assert service.current_version == 3


def test_what_is_no_rollout_is_refused(platform: Platform, easel: Easel) -> None:
    """With the platform's code and hint; an action that does not exist is bad input."""
    result = easel("rollout", "ocr", "pause")

    assert result.exit_code == 1
    assert "no rollout of ocr is on (NO_ROLLOUT)\nhint: `easel modify` begins one" in result.stderr
    assert easel("rollout", "ocr", "forwards").exit_code == 2
    assert len(platform.asked("Services.ChangeRollout")) == 1


def test_restart_soft_restarts_every_replica_in_place(platform: Platform, easel: Easel) -> None:
    """One call with all of them; done when each has another process."""
    before = [
        Replica(name="a", status="ready", ready=True, pid=1),
        Replica(name="b", status="ready", ready=True, pid=2),
    ]
    half_way = [Replica(name="a", status="ready", ready=True, pid=3), before[1]]
    after = [half_way[0], Replica(name="b", status="ready", ready=True, pid=4)]
    platform.replicas_path = [before, before, half_way, after]

    result = easel("restart", "ocr", "--soft", "--wait", "--timeout", "30")

    request = platform.asked("Replicas.Restart")[0]
    assert (result.exit_code, [*request.replicas], request.soft) == (0, ["a", "b"], True)
    assert platform.asked("Services.Restart") == []
    assert "2 replicas of ocr are being restarted one by one" in result.stderr
    assert "1 of 2 restarted · 2 ready of 2 wanted" in result.stderr
    assert "2 replicas are restarted" in result.stderr


def test_restart_soft_of_nothing(easel: Easel) -> None:
    """Said; and with an option that makes no sense, refused."""
    assert "ocr has no replicas now" in easel("restart", "ocr", "--soft").stderr
    assert easel("restart", "ocr", "--soft", "--allow-interruption").exit_code == 2
