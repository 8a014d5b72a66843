"""What a revision's tags and branches name, and what becomes of a replica that found something else."""

from __future__ import annotations

from typing import Any

import pytest

from easel_contracts.facts import Rollout
from easel_contracts.spec import GitSource, Image, ImageSource, Mount, ObjectSource
from easel_scheduler.decide.pins import KEEP_REVISIONS, Kept, Pinned, is_pinned, outlived, settled, short
from easel_scheduler.decide.world import Replica
from tests.unit.scheduler.build import T0, at, replica, revision, service

IMAGE = "containers[0].image"
GIT = "storage[1].git"
KEPT = {IMAGE: Kept(value="sha256:" + "a" * 64, replica="first", at=T0)}


def found(value: str, state: str = "fetching", path: str = IMAGE, **more: Any) -> Replica:
    return replica("other", state, pins={path: value}, placed_at=at(-1), **more)


def test_who_found_the_same_goes_on() -> None:
    """Also where it found something that nobody has found yet."""
    for r in (found("sha256:" + "a" * 64), found("c1", path=GIT), replica("other", "fetching")):
        assert settled(r, KEPT, at(1)) is r


def test_who_found_something_else_is_replaced() -> None:
    """Lost, not failed: it says nothing of the revision, so its successor waits for nothing and no rollout pauses."""
    r = settled(found("sha256:" + "b" * 64), KEPT, at(1))

    assert (r.state, r.cause, r.ended_at) == ("lost", "SourceMoved", at(1))
    assert r.message == (
        "containers[0].image: the tag moved while the first replicas started: this one found sha256:bbbbbbbbbbbb, "
        "the revision runs sha256:aaaaaaaaaaaa, as first found it first; its successor runs the same"
    )


def test_a_branch_moves_too() -> None:
    kept = {GIT: Kept(value="1" * 40, replica="first", at=T0)}

    assert "storage[1].git: the branch moved" in settled(found("2" * 40, path=GIT), kept, at(1)).message


def test_its_own_failure_says_nothing_of_the_revision_either() -> None:
    """What it ran is not what the revision runs."""
    failed = found("sha256:b", "failed", cause="Exited", ended_at=at(1))

    assert settled(failed, KEPT, at(2)).state == "lost"
    assert settled(found("sha256:" + "a" * 64, "failed", cause="Exited"), KEPT, at(2)).cause == "Exited"


@pytest.mark.parametrize("state", ["draining", "stopped", "lost"])
def test_what_ends_anyway_ends_as_it_would(state: str) -> None:
    r = found("sha256:b", state)

    assert settled(r, KEPT, at(1)) is r


def test_one_that_was_told_what_to_run_and_runs_something_else_has_failed() -> None:
    """Its successor would do the same: it waits, as after any failure."""
    late = replica("other", "fetching", pins={IMAGE: "sha256:b"}, placed_at=at(60))

    r = settled(late, KEPT, at(61))
    assert (r.state, r.cause) == ("failed", "AgentError")
    assert "it runs sha256:b though the revision runs sha256:aaaaaaaaaaaa" in r.message


def test_only_what_can_move_is_looked_up() -> None:
    """Uploaded code and paths of a node are what they are; objects are copied anew by every start."""
    assert is_pinned(revision(image=Image(reference="ocr:1.2")))
    assert is_pinned(revision(mounts=(Mount(mount_path="/a", source=GitSource(repo="r")),)))
    assert is_pinned(revision(mounts=(Mount(mount_path="/a", source=ImageSource(image="i")),)))
    fixed = (Mount(mount_path="/a", code_digest="sha256:c"), Mount(mount_path="/b", host_path="/b"),
             Mount(mount_path="/c", source=ObjectSource(url="oss://b/p/")))  # fmt: skip
    assert not is_pinned(revision(mounts=fixed))


def test_pins_outlive_everything_but_their_service() -> None:
    """A stopped service, or one that nobody has told of yet, may start a replica of an old revision at any time."""
    now = KEEP_REVISIONS + 1
    old = [Pinned(service="ocr", service_uid="u1", revision=n) for n in (1, 2, now)]

    def gone(**more: Any) -> list[int]:
        return [p.revision for p in outlived(old, {"ocr": service(1, revision(now), **more)})]

    assert outlived(old, {"ocr": None}) == []
    assert gone() == [1]
    assert gone(wanted="stopped") == [1]
    assert gone(rollout=Rollout(stable=revision(1), share_percent=20)) == []
    assert gone(wanted="deleted") == gone(uid="u2") == [1, 2, now]


def test_digests_are_short_for_people() -> None:
    assert short("local:sha256:0123456789abcdef") == "local:sha256:0123456789ab"
    assert short("0123456789abcdef") == "0123456789ab"
