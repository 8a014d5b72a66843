"""Restarts, switches, rollouts that begin and those that are taken back; locks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_contracts.facts import Rollout
from easel_contracts.spec import RolloutPolicy
from easel_control.decide import change, releases
from easel_control.decide.mutation import Change, refuse_locked
from easel_control.decide.releases import Laid, base_of, needs_room
from easel_control.decide.revisions import moves, steps_to
from easel_control.decide.status import status_of
from easel_control.decide.view import World
from easel_control.model import RevisionRow, ServiceRow, service_state
from tests.unit.control.rows import NOW, SPEC, content, replica, row, world

LAID = Laid(config_sealed=b"laid", config_shown='{"laid": 1}')
SECOND = replace(SPEC, number=2, port=9000)


def serving(**changes: Any) -> ServiceRow:
    return row(**{"status": "Running", "proven": True, "settled": 2, **changes})


def updated(before: ServiceRow, **more: Any) -> Change:
    asked = content(revision=replace(SPEC, number=0, port=9000), secrets_changed=True)
    made = change.updated(before, asked, before.latest, NOW, **more)
    assert made is not None
    return made


def rolling(**changes: Any) -> ServiceRow:
    """Revision 2 on its way to replace 1."""
    made = updated(serving()).row
    assert made.rollout is not None
    return replace(made, rollout=replace(made.rollout, **changes))


def test_an_update_of_what_serves_begins_a_rollout() -> None:
    policy = RolloutPolicy(waves=(10, 100))
    made = updated(serving(rolling=policy)).row
    assert made.rollout is not None
    assert made.rollout.share_percent == 20, "the waves that the update itself brings count"

    got = service_state(made)
    assert (got.revision.number, got.rolling) == (2, RolloutPolicy())
    assert got.rollout == Rollout(stable=SPEC, share_percent=20, state="rolling", interrupt=False)
    assert (made.status, made.latest, made.proven, made.rollout.began_at) == ("Updating", 2, True, NOW)


@pytest.mark.parametrize("before", [row(), serving(wanted="stopped", status="Stopped"), row(status="Failed")])
def test_without_anything_that_has_served_there_is_no_rollout(before: ServiceRow) -> None:
    made = updated(before).row

    assert (made.rollout, made.proven, made.revision.number) == (None, False, 2)


def test_an_update_meanwhile_keeps_what_really_serves() -> None:
    third = updated(rolling()).row
    assert third.rollout is not None
    assert (third.revision.number, third.rollout.stable.number) == (3, 1)

    late = updated(rolling(took_over=True, share_percent=100)).row
    assert late.rollout is not None
    assert (late.revision.number, late.rollout.stable.number, late.rollout.share_percent) == (3, 2, 20)


def test_a_change_of_rolling_alone_is_no_revision_and_counts_for_the_rollout_that_is_on() -> None:
    before = rolling()
    policy = RolloutPolicy(waves=(100,))
    asked = content(revision=replace(SECOND, number=0), rolling=policy, config_changed=True)
    made = change.updated(before, asked, 2, NOW)

    assert made is not None
    assert (made.new_revision, made.row.rolling, made.row.rollout) == (False, policy, before.rollout)


def test_a_restart_is_a_rollout_over_the_same_revision() -> None:
    made = releases.restarted(serving(), NOW, interrupt=True).row
    assert made.rollout is not None
    assert (made.revision.restart_nonce, made.rollout.stable.restart_nonce) == (1, 0)
    assert made.rollout.interrupt
    assert not releases.restarted(row(), NOW).row.rollout, "nothing has served"
    with pytest.raises(Conflict, match="is stopped"):
        releases.restarted(row(wanted="stopped", status="Stopped"), NOW)


def test_a_restart_that_was_taken_back_never_lends_its_nonce_again() -> None:
    failed = releases.restarted(serving(), NOW).row
    back = releases.taken_back(failed, LAID, "RevisionFailing", "boom", NOW)
    again = releases.restarted(back.row, NOW).row

    assert (back.row.revision.restart_nonce, back.given_up) == (0, 0)
    assert again.revision.restart_nonce == 2


def test_taking_back_ends_at_the_stable_revision_and_says_why() -> None:
    before = rolling()
    got = releases.taken_back(before, LAID, "RevisionFailing", "1 replica failed", NOW)

    assert (got.row.revision, got.row.rollout, got.given_up) == (SPEC, None, 2)
    assert (got.row.generation, got.verb, got.reason) == (before.generation + 1, "rollout_changed", "RolledBack")
    assert got.message == "revision 2 was given up for revision 1: 1 replica failed"
    assert (got.row.config_sealed, got.row.config_shown) == (b"laid", '{"laid": 1}')
    assert (got.row.latest, got.row.status, got.row.reason) == (2, "Updating", "RollingBack")
    done = status_of(got.row, world(replica("a"), replica("b"), routed=("a", "b")))
    assert (done.status, done.reason) == ("Running", "RolledBack")
    assert "1 replica failed" in done.message
    assert updated(got.row).row.reverted is None


def switch(before: ServiceRow, spec: Any = SPEC, there: World | None = None, **more: Any) -> Change | None:
    return releases.switched(before, spec, LAID, there or world(), NOW, **more)


def test_a_switch_goes_by_a_rollout_with_a_fresh_restart() -> None:
    before = serving(revision=SECOND, latest_revision=3, nonces=4)
    got = switch(before, warnings=("storage[0] …",))
    assert got is not None
    assert got.row.rollout is not None
    assert (got.row.revision, got.row.rollout.stable) == (replace(SPEC, restart_nonce=5), SECOND)
    assert (got.row.latest, got.row.nonces, got.warnings) == (3, 5, ("storage[0] …",))
    assert (got.row.config_sealed, got.row.instance, got.row.generation) == (b"laid", 2, 2)
    assert (got.row.reason, got.new_revision) == ("RevisionSwitched", False)


def test_a_switch_takes_the_replicas_that_are_up() -> None:
    before = serving(revision=SECOND)
    up = world(replica("a", restart_nonce=3), replica("b", "draining", restart_nonce=7),
               failed=(replica("x", "failed", restart_nonce=3), replica("y", "failed", restart_nonce=2)))  # fmt: skip
    got = switch(before, there=up)

    assert got is not None
    assert got.row.rollout is not None
    assert got.row.revision.restart_nonce == 3
    assert got.row.rollout.forgiven == ("x",)


def test_a_switch_back_meanwhile_is_a_revert() -> None:
    got = switch(rolling())

    assert got is not None
    assert (got.row.revision, got.row.rollout, got.given_up) == (SPEC, None, 2)
    assert not needs_room(rolling(), 1)
    assert not needs_room(rolling(), 2)
    assert needs_room(serving(revision=SECOND), 1)


def test_a_switch_to_what_is_present_changes_nothing() -> None:
    assert switch(serving()) is None
    assert switch(serving(), interrupt=True) is None


def test_asked_again_with_interruption_a_rollout_may_make_room() -> None:
    before = rolling()
    same = content(revision=replace(SECOND, number=0))
    assert change.updated(before, same, 2, NOW) is None
    made = change.updated(before, same, 2, NOW, interrupt=True)
    assert made is not None
    assert made.row.rollout is not None
    assert made.row.rollout.interrupt
    assert switch(before, SECOND, interrupt=True) is not None


def test_pause_resume_and_what_needs_a_rollout() -> None:
    held = releases.paused(rolling(), "ek1", NOW)
    assert held is not None
    assert held.row.rollout is not None
    assert (held.row.rollout.state, held.verb) == ("paused", "rollout_changed")
    assert releases.paused(held.row, "ek1", NOW) is None
    on = releases.resumed(held.row, ("bad",), "ek1", NOW)
    assert on is not None
    assert on.row.rollout is not None
    assert (on.row.rollout.state, on.row.rollout.forgiven) == ("rolling", ("bad",))
    with pytest.raises(Conflict, match="no rollout of ocr is on"):
        releases.paused(serving(), "ek1", NOW)
    with pytest.raises(Conflict, match="no rollout of ocr is on"):
        releases.resumed(serving(), (), "ek1", NOW)
    with pytest.raises(Conflict, match="no rollout of ocr is on"):
        releases.taken_back(serving(), LAID, "r", "w", NOW)


def test_a_stop_keeps_the_rollout_and_a_start_times_it_anew() -> None:
    halted = change.stopped(rolling(progress_at=NOW, served_at=NOW), NOW)
    assert halted is not None
    assert halted.row.rollout is not None
    assert base_of(halted.row) is None
    again = change.started(replace(halted.row, status="Stopped"), NOW + timedelta(days=1))
    assert again is not None
    assert again.row.rollout is not None
    assert (again.row.rollout.progress_at, again.row.rollout.served_at) == (None, None)
    assert again.row.rollout.stable == SPEC


@pytest.mark.parametrize(
    ("lock", "action", "refused"),
    [
        ("none", "Delete", False), ("dangerous", "Delete", True), ("dangerous", "Stop", True),
        ("dangerous", "Update", False), ("dangerous", "Restart", False), ("all", "Update", True),
        ("all", "ChangeRollout", True), ("all", "Scale", True), ("all", "Start", True), ("all", "Lock", False),
    ],
)  # fmt: skip
def test_locks(lock: Any, action: str, refused: bool) -> None:
    if not refused:
        refuse_locked(row(lock=lock), f"Services.{action}")
        return
    with pytest.raises(Conflict) as caught:
        refuse_locked(row(lock=lock), f"Services.{action}")
    assert (caught.value.code, caught.value.hint) == ("LOCKED", "`easel lock ocr none` takes the lock off")


def test_locking() -> None:
    made = change.locked(row(), "all", NOW)
    assert made is not None
    assert (made.row.lock, made.message) == ("all", "the safety lock is all, was none")
    assert change.locked(made.row, "all", NOW) is None
    with pytest.raises(InvalidInput, match="none, dangerous or all"):
        change.locked(row(), "everything", NOW)


def revision(number: int, state: str) -> RevisionRow:
    return RevisionRow(workspace="default", name="ocr", number=number, state=state, spec=SPEC, config_shown="{}",
                       env_sealed=b"", created_at=NOW)  # fmt: skip


def test_the_stable_revision_stays_live_until_the_rollout_is_over() -> None:
    before = rolling()
    zero = status_of(before, world())
    for status in (zero, replace(zero, status="Running", settled=2)):
        got = moves(before, status, [revision(1, "live"), revision(2, "admitted")], started=True)
        assert [(r.number, state) for r, state in got] == [(2, "rolling_out")]
    over = replace(before, rollout=None)
    done = replace(zero, status="Running", settled=2)
    got = moves(over, done, [revision(1, "live"), revision(2, "rolling_out")], started=True)
    assert [(r.number, state) for r, state in got] == [(1, "superseded"), (2, "live")]


def test_a_revision_that_was_given_up_stays_reverted() -> None:
    back = releases.taken_back(rolling(), LAID, "RevertAsked", "asked", NOW).row
    done = status_of(back, world(replica("a"), replica("b"), routed=("a", "b")))

    assert moves(back, done, [revision(1, "live"), revision(2, "reverted")], started=True) == []
    assert steps_to("admitted", "reverted") == ["rolling_out", "reverted"]
    assert steps_to("failed", "reverted") == ["rolling_out", "reverted"]
    assert steps_to("live", "reverted") == ["superseded", "rolling_out", "reverted"]
    assert steps_to("reverted", "reverted") == []
