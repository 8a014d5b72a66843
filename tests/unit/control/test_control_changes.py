"""What mutations make of a row."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_contracts.spec import Autoscaling
from easel_control.decide import change, releases
from easel_control.decide.revisions import moves
from easel_control.decide.status import status_of
from easel_control.model import RevisionRow
from tests.unit.control.rows import NOW, SPEC, content, replica, row, world

POLICY = Autoscaling(min=1, max=3, targets=(("qps", 5.0),))


def test_a_name_used_again_goes_on_counting() -> None:
    made = change.created(content(token_sealed=b"t"), workspace="default", name="ocr", uid="u", past=(7, 31), now=NOW)

    assert (made.row.generation, made.row.row_version, made.row.revision.number) == (8, 32, 1)
    assert (made.row.instance_generation, made.row.revision_generation) == (8, 8)


def test_the_same_content_is_no_change() -> None:
    assert change.updated(row(), content(), 1, NOW) is None


def test_only_instance_is_a_scale() -> None:
    made = change.updated(row(status="Running"), content(instance=4), 1, NOW)

    assert made is not None
    assert (made.verb, made.row.revision.number, made.row.instance_generation, made.row.status) == (
        "scaled", 1, 2, "Scaling",
    )  # fmt: skip


def test_content_makes_a_revision_and_takes_the_restart_count_back() -> None:
    before = row(status="Running", revision=replace(SPEC, restart_nonce=3))
    made = change.updated(before, content(revision=replace(SPEC, number=0, port=9000)), 6, NOW)

    assert made is not None
    assert made.new_revision
    assert (made.row.revision.number, made.row.revision.restart_nonce, made.row.revision_generation) == (7, 0, 2)
    assert made.row.status == "Updating"


def test_environment_alone_makes_a_revision_too() -> None:
    made = change.updated(row(), content(secrets_changed=True), 1, NOW)

    assert made is not None
    assert made.row.revision.number == 2


def test_a_token_or_scaling_change_is_no_revision() -> None:
    token = change.updated(row(), content(token_sealed=b"new"), 1, NOW)
    scaling = change.updated(row(), content(autoscaling=POLICY), 1, NOW)

    assert token is not None
    assert (token.row.token_version, token.new_revision, token.row.token_sealed) == (2, False, b"new")
    assert scaling is not None
    assert (scaling.row.autoscaling_generation, scaling.new_revision) == (2, False)


def test_scaling_by_hand_under_an_autoscaler_is_refused() -> None:
    with pytest.raises(Conflict, match="between 1 and 3"):
        change.scaled(row(autoscaling=POLICY), 3, NOW)
    with pytest.raises(Conflict):
        change.updated(row(autoscaling=POLICY), content(autoscaling=POLICY, instance=3), 1, NOW)


@pytest.mark.parametrize("instance", [0, -1, 1001])
def test_counts_out_of_range(instance: int) -> None:
    with pytest.raises(InvalidInput, match="1 to 1000"):
        change.scaled(row(), instance, NOW)


def test_what_is_done_already_is_no_change() -> None:
    assert change.stopped(row(wanted="stopped", status="Stopped"), NOW) is None
    assert change.started(row(), NOW) is None
    assert change.deleted(row(wanted="deleted", status="Deleting"), NOW) is None
    assert change.scaled(row(), 2, NOW) is None


def test_a_service_being_deleted_cannot_be_changed() -> None:
    gone = row(wanted="deleted", status="Deleting")

    for act in (change.stopped, change.started, releases.restarted):
        with pytest.raises(Conflict, match="being deleted"):
            act(gone, NOW)
    with pytest.raises(Conflict):
        change.updated(gone, content(instance=3), 1, NOW)


def test_an_update_of_a_stopped_service_leaves_it_stopped() -> None:
    made = change.updated(row(wanted="stopped", status="Stopped"), content(secrets_changed=True), 1, NOW)

    assert made is not None
    assert made.row.status == "Stopped"


def test_revisions_move_on_with_the_service() -> None:
    old = RevisionRow(workspace="default", name="ocr", number=1, state="live", spec=SPEC, config_shown="",
                      env_sealed=b"", created_at=NOW)  # fmt: skip
    new = replace(old, number=2, state="admitted")
    present = row(status="Updating", instance=1, settled=1, revision=replace(SPEC, number=2), revision_generation=2)
    up = replica("b", revision=2, generation=2)

    half = status_of(present, world(replica("a"), replica("b", "starting", revision=2, generation=2), routed=("a",)))
    assert [(r.number, s) for r, s in moves(present, half, [old, new], started=True)] == [(2, "rolling_out")]
    done = status_of(present, world(up, routed=("b",)))
    rolling = replace(new, state="rolling_out")
    assert [(r.number, s) for r, s in moves(present, done, [old, rolling], started=True)] == [
        (1, "superseded"),
        (2, "live"),
    ]
