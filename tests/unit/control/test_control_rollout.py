"""A rollout's steps: a table of scenes, and what follows on each."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from easel_contracts.spec import RolloutPolicy
from easel_control.decide.rollout import (
    Move,
    Scene,
    advance,
    begun,
    look_again_s,
    paused_by_user,
    resumed,
    reverts_at,
    scene_of,
    wave_number,
    wave_size,
)
from easel_control.decide.view import view_of
from easel_control.model import RolloutRow
from tests.unit.control.rows import NOW, SPEC, replica, row, world

POLICY = RolloutPolicy(wave_pause_s=60.0)
BAD = replica("ocr-2-bad", "failed", revision=2, cause="CrashLoop", message="exited with 1")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def on(**changes: Any) -> RolloutRow:
    return replace(begun(SPEC, POLICY, NOW, interrupt=False), **changes)


def scene(**changes: Any) -> Scene:
    return Scene(**{"now": NOW, "wanted": 10, "serving": 0, "older": 10, **changes})


def moved(rollout: RolloutRow, policy: RolloutPolicy = POLICY, **changes: Any) -> Move:
    found = advance(rollout, policy, scene(**changes))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rollout", "seen", "kind"),
    [
        (on(), {}, "note"),
        (on(progress_at=NOW), {"now": later(599)}, None),
        (on(progress_at=NOW), {"now": later(600)}, "pause"),
        (on(progress_at=NOW), {"now": later(599), "serving": 1}, "note"),
        (on(progress_at=NOW, most_serving=1), {"now": later(600), "serving": 1}, "pause"),
        (on(progress_at=NOW), {"now": later(600), "no_room": True}, "note"),
        (on(progress_at=NOW), {"now": later(600), "wanted": 0, "older": 0}, "note"),
        (on(), {"wanted": 0, "older": 0}, None),
        (on(), {"wanted": 0, "older": 0, "serving": 1}, None),
        (on(), {"serving": 2}, "note"),
        (on(served_at=NOW), {"serving": 2, "now": later(59)}, None),
        (on(served_at=NOW), {"serving": 2, "now": later(60)}, "wave"),
        (on(served_at=NOW), {"serving": 1, "now": later(60)}, "note"),
        (on(served_at=NOW), {"serving": 10, "older": 0}, "finish"),
        (on(share_percent=100), {"serving": 10, "older": 0}, "finish"),
        (on(share_percent=100, served_at=NOW, took_over=True), {"serving": 10, "older": 1, "now": later(90)}, None),
        (on(share_percent=100), {"serving": 9, "older": 0, "no_room": True}, "finish"),
        (on(), {"serving": 1, "wanted": 10, "older": 0, "no_room": True}, None),
        (on(), {"serving": 1, "wanted": 1, "older": 0}, "finish"),
        (on(served_at=NOW, took_over=True), {"serving": 1, "wanted": 1, "older": 1, "now": later(90)}, None),
        (on(), {"failing": (BAD,)}, "pause"),
        (on(failed=(BAD.id,)), {}, "pause"),
        (on(forgiven=(BAD.id,), progress_at=NOW), {"failing": (BAD,)}, None),
        (on(state="paused", paused_at=NOW, reason="RevisionFailing"), {"now": later(29)}, None),
        (on(state="paused", paused_at=NOW, reason="RevisionFailing"), {"now": later(30)}, "revert"),
        (on(state="paused", paused_at=NOW, reason="NoProgress"), {"now": later(30), "serving": 10}, "revert"),
        (on(state="paused", paused_at=NOW, reason="PausedByUser"), {"now": later(9999), "failing": (BAD,)}, None),
    ],
)
def test_the_steps(rollout: RolloutRow, seen: dict[str, Any], kind: str | None) -> None:
    got = advance(rollout, POLICY, scene(**seen))

    assert (got.kind if got is not None else None) == kind


def test_waves_go_on_until_all_are_of_the_new_revision() -> None:
    rollout, shares = on(served_at=later(-60)), []
    while (got := moved(rollout, serving=wave_size(rollout.share_percent, 10))).kind == "wave":
        assert got.rollout is not None
        shares.append(got.rollout.share_percent)
        rollout = replace(got.rollout, served_at=later(-60))

    assert shares == [50, 100]
    assert moved(rollout, serving=10, older=0).kind == "finish"


def test_a_wave_that_adds_no_replica_is_passed_over() -> None:
    """Of two replicas 20 % and 50 % are one."""
    got = moved(on(served_at=later(-60)), wanted=2, serving=1)

    assert got.rollout is not None
    assert (got.rollout.share_percent, got.message) == (
        100, "1 serve; 2 of 2 replicas may now be of the new revision",
    )  # fmt: skip


def test_a_wave_has_to_serve_anew_after_one_of_it_was_lost() -> None:
    fell = moved(on(served_at=later(-30)), serving=1).rollout

    assert fell is not None
    assert (fell.served_at, fell.progress_at, fell.most_serving) == (None, NOW, 1)
    again = moved(fell, serving=2, now=later(5)).rollout
    assert again is not None
    assert again.served_at == later(5)


def test_a_failure_says_how_many_and_which() -> None:
    policy = replace(POLICY, stop_after="20%")
    first = moved(on(), policy, failing=(BAD,))
    assert first.rollout is not None
    assert (first.kind, first.rollout.failed) == ("note", (BAD.id,))

    other = replace(BAD, id="ocr-2-worse")
    second = moved(first.rollout, policy, failing=(other,), now=later(3))
    assert second.rollout is not None
    assert second.rollout.failed == (BAD.id, other.id)
    assert (second.rollout.state, second.rollout.paused_at, second.reason) == ("paused", later(3), "RevisionFailing")
    assert second.message == "2 replicas of the new revision failed; ocr-2-worse: exited with 1"
    assert second.rollout.cause == "CrashLoop"


def test_a_stall_says_what_is_missing() -> None:
    got = moved(on(progress_at=NOW, most_serving=1), serving=1, now=later(600))

    assert got.message == "1 of 2 replicas of the wave serve, and for 600 s no other came up"


def test_pausing_at_failure_for_good() -> None:
    policy = replace(POLICY, on_failure="pause")
    stuck = on(state="paused", paused_at=NOW, reason="RevisionFailing")

    assert reverts_at(stuck, policy) is None
    assert advance(stuck, policy, scene(now=later(9999))) is None
    assert look_again_s(stuck, policy, scene()) is None


def test_somebodys_pause_takes_the_revert_away_and_resuming_forgives() -> None:
    failed = on(state="paused", paused_at=NOW, reason="RevisionFailing", message="boom", failed=(BAD.id,))
    held = paused_by_user(failed, "ek1", later(5))
    assert held is not None
    assert (held.message, reverts_at(held, POLICY)) == ("ek1 paused it; before: boom", None)
    assert paused_by_user(held, "ek1", NOW) is None

    again = resumed(held, ("ocr-2-late",))
    assert again is not None
    assert (again.state, again.failed, again.forgiven) == ("rolling", (), (BAD.id, "ocr-2-late"))
    assert resumed(again, ()) is None
    got = advance(again, POLICY, scene(failing=(BAD,)))
    assert got is not None
    assert got.kind == "note"


def test_when_it_is_looked_at_again() -> None:
    assert look_again_s(on(progress_at=NOW), POLICY, scene(now=later(100))) == 500.0
    assert look_again_s(on(served_at=NOW), POLICY, scene(now=later(10), serving=2)) == 50.0
    assert look_again_s(on(served_at=NOW, share_percent=100), POLICY, scene(serving=10)) is None
    assert look_again_s(on(), POLICY, scene(wanted=0)) is None
    stuck = on(state="paused", paused_at=NOW, reason="NoProgress")
    assert look_again_s(stuck, POLICY, scene(now=later(10))) == 20.0
    assert look_again_s(stuck, POLICY, scene(now=later(99))) == 0.0


def test_a_policy_that_changed_meanwhile_counts_from_where_the_rollout_is() -> None:
    """Waves below the present share are over, and a share never falls."""
    policy = replace(POLICY, waves=(5, 30, 100), wave_pause_s=0.0)
    got = moved(on(share_percent=20, served_at=NOW), policy, serving=2)

    assert got.rollout is not None
    assert got.rollout.share_percent == 30
    assert [wave_number(share, policy) for share in (5, 20, 30, 100)] == [1, 2, 2, 3]


def test_what_counts_as_failing() -> None:
    """Ended by failing, stuck, or up once and fallen; not lack of room, a slow start, or another revision's."""
    new: dict[str, Any] = {"revision": 2}
    fell = replica("fell", "starting", cause="Exited", restarts=1, phase_s={"probe": 0.2}, **new)
    living = (
        fell, replica("stuck", "starting", cause="MountFailed", **new),
        replica("huge", "pending", cause="TooLarge", **new), replica("slow", "starting", **new),
        replica("first", "starting", cause="Exited", restarts=1, **new),
        replica("room", "pending", cause="NoCapacity", **new),
        replica("soft", "starting", cause="Exited", restarts=1, phase_s={"probe": 1.0}, out_of_traffic="restarting",
                **new),
        replica("busy", "unready", cause="ProbeFailed", restarts=1, phase_s={"probe": 1.0}, **new),
        replica("old", "starting", cause="CrashLoop"),
    )  # fmt: skip
    there = world(*living, failed=(BAD, replica("older", "failed", cause="CrashLoop")), routed=("old",))
    got = scene_of(view_of(row(revision=replace(SPEC, number=2)), there), NOW)

    assert [r.id for r in got.failing] == ["ocr-2-bad", "fell", "stuck", "huge"]
    assert (got.no_room, got.older, got.serving, got.wanted) == (True, 1, 0, 2)
