"""Each step of a canary: forward, waiting, back, and by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_contracts.spec import Match, Sticky
from easel_control.decide import canary_hands as hands
from easel_control.decide.canary import ALL, Canary, split_of, told
from easel_control.decide.canary_plan import Asked, Plan, planned
from easel_control.decide.canary_steps import LEAVE_S, next_step
from easel_control.decide.evidence import is_frozen
from tests.unit.control.canary_scenes import NOW, Scene, sight, started

WEIGHTS = (10, 50, 100, 250, 500, 1000)


def weights(canary: Canary) -> list[int]:
    """Of its journal, as they changed."""
    found = [note.weight_permille for note in canary.journal]
    return [w for i, w in enumerate(found) if i == 0 or w != found[i - 1]]


def reasons(canary: Canary) -> list[str]:
    return [note.reason for note in canary.journal]


# Forward.


def test_a_good_candidate_goes_through_every_step_and_is_promoted() -> None:
    scene = Scene(step_time_s=30).ended()
    assert scene.canary.state == "promoted"
    assert weights(scene.canary) == [0, *WEIGHTS]
    assert scene.acts[-1] == "promote"
    assert scene.canary.evidence.candidate.requests > 1000
    assert scene.canary.journal[-1].message.startswith("promoted after ")


def test_replicas_of_the_share_come_before_the_weight() -> None:
    """One of ten for 1 %, three for 25 %: the weight waits for them, and says for what."""
    scene = Scene(steps_permille=(10, 250, 1000), step_time_s=1)
    scene.serving = 0
    scene.looks(5)
    assert (scene.canary.state, scene.canary.share_percent) == ("starting", 1)
    assert scene.canary.waits_for == "0 of 1 replicas of the candidate serve"
    scene.serving = 1
    scene.until("ramping")
    scene.looks(150)
    assert (scene.canary.weight_permille, scene.canary.share_permille) == (10, 250)
    assert scene.canary.waits_for == "1 of 3 replicas of the candidate serve"
    scene.serving = 3
    scene.look()
    assert scene.canary.weight_permille == 250


def test_a_step_counts_from_when_its_weight_is_live() -> None:
    scene = Scene(steps_permille=(100, 1000), step_time_s=20, metrics=("errors",)).until("ramping")
    scene.more = {"realised": 0}
    scene.looks(100)
    assert (scene.canary.step, scene.canary.live_at) == (0, None)
    assert scene.canary.waits_for == "the gateways take up 10 %; 0 % is live"
    assert not scene.canary.evidence.bets["errors"].candidate_requests, "seconds before it is live are not judged"
    scene.more = {}
    scene.looks(10)
    assert "the step lasts until" in scene.canary.waits_for or "requests of the candidate" in scene.canary.waits_for
    assert scene.canary.live_at is not None
    assert scene.canary.evidence.bets["errors"].candidate_requests


def test_stable_is_measured_before_the_first_step() -> None:
    """500 answers; after a minute 20 are enough; with fewer it waits. Errors alone need none of it."""
    busy = Scene().until("baseline")
    assert busy.canary.weight_permille == 0
    assert is_frozen(busy.until("ramping").canary.evidence)
    quiet = Scene()
    quiet.rate = 0
    quiet.until("baseline").looks(70)
    assert quiet.canary.state == "baseline"
    assert quiet.canary.waits_for.endswith("of the 20 answers of stable that its latency is taken from")
    quiet.rate = 10
    assert quiet.looks(12).canary.state == "ramping"
    errors = Scene(metrics=("errors",))
    errors.rate = 0
    assert errors.looks(5).canary.state == "ramping"


def test_no_data_pauses() -> None:
    """Without requests it neither fails nor goes on, however long."""
    scene = Scene(step_time_s=1, time_limit_s=100_000).until("ramping")
    scene.rate = 0
    scene.looks(3000)
    assert (scene.canary.state, scene.canary.step) == ("ramping", 0)
    assert scene.canary.waits_for.startswith("no request has reached the candidate in this step")
    scene.more = {"no_counts": "the monitor does not tell its counts: away"}
    scene.look()
    assert scene.canary.waits_for.endswith("; the monitor does not tell its counts: away")


def test_a_step_needs_as_many_requests_as_asked_for() -> None:
    scene = Scene(steps_permille=(100, 1000), step_time_s=1, min_requests=700).until("ramping")
    scene.looks(60)
    assert scene.canary.waits_for.endswith("of 700 requests of the candidate in this step")


def test_all_requests_only_go_over_where_it_is_not_worse() -> None:
    """Too little to tell at one percent: it stays, says what is missing, and after the time limit that it is over."""
    scene = Scene(steps_permille=(10, 1000), step_time_s=1, min_requests=5, time_limit_s=300).until("ramping")
    scene.looks(100)
    assert (scene.canary.state, scene.canary.weight_permille) == ("ramping", 10)
    assert "not enough data to show that it is not worse" in scene.canary.waits_for
    scene.looks(200)
    assert scene.canary.waits_for.startswith("the time limit of 300 s is over, so it stays until somebody decides; not")
    assert (scene.canary.state, reasons(scene.canary)[-1], reasons(scene.canary).count("TimeLimit")) == (
        "ramping", "TimeLimit", 1,
    )  # fmt: skip
    assert told(scene.canary).endswith("it stays there, the time limit is over")


def test_compared_answers_are_a_gate() -> None:
    scene = Scene(steps_permille=(500, 1000), step_time_s=1, mirror_gate=True).until("ramping")
    scene.more = {"compared": "not_enough_data", "compared_said": "3 samples"}
    scene.looks(300)
    assert scene.canary.waits_for == "compared answers: 3 samples"
    scene.more = {"compared": "same"}
    assert scene.until("promoting").ended().canary.state == "promoted"
    other = Scene(steps_permille=(500, 1000), step_time_s=1, mirror_gate=True).until("ramping")
    other.more = {"compared": "differs", "compared_said": "8 % of 300 answers differ"}
    other.ended()
    assert (other.canary.state, other.canary.reason) == ("rolled_back", "AnswersDiffer")
    assert other.canary.message == "8 % of 300 answers differ"


# Back.


@pytest.mark.parametrize(
    ("errors", "slow", "reason"),
    [((0, 5), (0, 0), "Worse"), ((0, 0), (0, 60), "Worse"), ((0, 90), (0, 0), "MostRequestsFail")],
)
def test_a_worse_candidate_is_out_of_traffic_first_and_then_taken_back(
    errors: tuple[int, int], slow: tuple[int, int], reason: str
) -> None:
    scene = Scene(steps_permille=(200, 1000), step_time_s=300).until("ramping")
    scene.errors, scene.slow = errors, slow
    scene.until("rolled_back")
    assert (scene.canary.weight_permille, scene.canary.is_on, scene.acts[-1]) == (0, True, "split")
    assert scene.canary.reason == reason
    assert any(char.isdigit() for char in scene.canary.message)
    scene.look()
    assert (scene.canary.is_on, scene.acts[-1]) == (False, "back")


def test_gateways_that_do_not_answer_hold_nothing_up() -> None:
    scene = Scene(steps_permille=(200, 1000)).until("ramping")
    scene.more = {"replicas_fail": "2 replicas failed", "realised": 200}
    scene.until("rolled_back").looks(3)
    assert scene.canary.is_on
    assert scene.canary.waits_for == "the gateways take the candidate out of traffic; 20 % is live"
    scene.looks(int(LEAVE_S))
    assert (scene.canary.is_on, scene.acts[-1]) == (False, "back")


def test_failures_that_stable_has_too_are_not_the_candidates() -> None:
    scene = Scene(steps_permille=(200, 1000), step_time_s=300).until("ramping")
    scene.errors = (90, 90)
    scene.looks(100)
    assert scene.canary.state == "ramping"


@pytest.mark.parametrize("state", ["starting", "baseline", "ramping", "promoting"])
def test_replicas_that_fail_end_it_in_every_state(state: str) -> None:
    scene = Scene(step_time_s=1).until(state)
    scene.more = {"replicas_fail": "1 replica of the new revision failed; r1: exited with 1"}
    scene.ended()
    assert (scene.canary.state, scene.canary.reason) == ("rolled_back", "ReplicasFail")
    assert scene.canary.weight_permille == 0


def test_on_breach_it_may_pause_out_of_traffic_instead_and_begin_anew() -> None:
    scene = Scene(steps_permille=(200, 1000), step_time_s=10, on_breach="pause").until("ramping")
    scene.errors = (0, 5)
    scene.until("paused")
    assert (scene.canary.weight_permille, scene.canary.paused_by, scene.canary.is_on) == (0, "breach", True)
    scene.looks(30)
    assert (scene.canary.state, scene.live) == ("paused", 0)
    scene.errors = (0, 0)
    move = hands.resumed(scene.canary, "ak", scene.now)
    assert move is not None
    scene.canary = move.canary
    assert (scene.canary.state, scene.canary.step, scene.canary.evidence.bets["errors"].candidate_requests) == (
        "starting", -1, 0,
    )  # fmt: skip
    assert scene.ended().canary.state == "promoted"


def test_what_somebody_else_ends_is_over() -> None:
    for there, act in (("stopped", "back"), ("deleted", "end"), ("gone", "end")):
        scene = Scene().until("ramping")
        scene.more = {"there": there, "wanted": 0, "realised": None}
        move = scene.look()
        assert move is not None
        assert (move.act, move.canary.state, move.canary.is_on) == (act, "aborted", False)
        assert move.canary.weight_permille == 0


# All at once.


def test_blue_green_goes_over_in_one_step_and_back_by_one() -> None:
    """All replicas come up before any request; all requests in one step; judged by the limit of errors."""
    scene = Scene(steps_permille=(1000,), keep_stable=True, step_time_s=20)
    scene.serving = 9
    scene.looks(10)
    assert scene.canary.waits_for == "9 of 10 replicas of the candidate serve"
    scene.serving = None
    scene.until("promoting")
    assert weights(scene.canary) == [0, 1000]
    good = Scene(steps_permille=(1000,), keep_stable=True, step_time_s=20).ended()
    assert good.canary.state == "promoted"
    scene.errors = (0, 5)
    scene.ended()
    assert (scene.canary.state, scene.canary.reason) == ("rolled_back", "Worse")
    assert "since all requests go to it" in scene.canary.message


def test_blue_green_waits_for_enough_requests() -> None:
    scene = Scene(steps_permille=(1000,), step_time_s=5).until("promoting")
    scene.rate = 1
    scene.looks(120)
    assert (scene.canary.state, scene.canary.is_on) == ("promoting", True)
    assert "requests" in scene.canary.waits_for


# By hand.


def test_by_hand_nothing_goes_on_by_itself() -> None:
    scene = Scene(steps_permille=(100, 1000), manual=True).until("baseline").looks(100)
    assert scene.canary.waits_for == "`easel canary step ocr` takes the first step"
    for weight in (100, 1000):
        move = hands.stepped(scene.canary, "ak", scene.now)
        assert move is not None
        scene.canary = move.canary
        assert hands.stepped(scene.canary, "ak", scene.now) is None
        scene.looks(200)
        assert scene.canary.weight_permille == weight
    assert scene.canary.waits_for == "steps are taken by hand: `easel canary promote ocr`"
    with pytest.raises(Conflict, match="promote"):
        hands.stepped(scene.canary, "ak", scene.now)
    promote(scene)
    assert scene.ended().canary.state == "promoted"


def promote(scene: Scene) -> None:
    move = hands.promoted(scene.canary, "ak", scene.now)
    assert move is not None
    scene.canary = move.canary


def test_promoted_by_hand_waits_for_replicas_and_gateways_alone() -> None:
    scene = Scene().until("ramping")
    scene.errors, scene.rate, scene.serving = (0, 30), 50, 4
    promote(scene)
    scene.looks(50)
    assert (scene.canary.state, scene.canary.weight_permille) == ("promoting", 10)
    scene.serving = 10
    scene.ended()
    assert (scene.canary.state, scene.acts[-1]) == ("promoted", "promote")
    assert hands.HANDS["pause"] is hands.paused
    with pytest.raises(Conflict, match="promoted"):
        hands.promoted(scene.canary, "ak", scene.now)


def test_paused_by_somebody_it_stays_at_its_weight_and_goes_back_if_it_is_worse() -> None:
    scene = Scene(steps_permille=(200, 1000), step_time_s=1).until("ramping")
    move = hands.paused(scene.canary, "ak", scene.now)
    assert move is not None
    scene.canary = move.canary
    scene.looks(500)
    assert (scene.canary.state, scene.canary.weight_permille) == ("paused", 200)
    resumed = hands.resumed(scene.canary, "ak", scene.now)
    assert resumed is not None
    assert (resumed.canary.state, resumed.canary.step, resumed.canary.weight_permille) == ("ramping", 0, 200)
    scene.errors = (0, 10)
    assert scene.ended().canary.state == "rolled_back"


def test_aborted_in_every_state() -> None:
    for state in ("starting", "baseline", "ramping", "promoting"):
        scene = Scene(step_time_s=1).until(state)
        move = hands.aborted(scene.canary, "ak", scene.now)
        assert move is not None
        assert (move.canary.weight_permille, move.act) == (0, "split")
        scene.canary = move.canary
        assert scene.ended().canary.state == "aborted"
        assert (scene.acts[-1], scene.canary.message) == ("back", "ak aborted it")


def test_a_step_asked_for_skips_time_and_requests_but_not_the_last_gate() -> None:
    scene = Scene(steps_permille=(10, 20, 1000), step_time_s=10_000).until("ramping")
    move = hands.stepped(scene.canary, "ak", scene.now)
    assert move is not None
    scene.canary = move.canary
    assert scene.looks(3).canary.weight_permille == 20
    with pytest.raises(Conflict, match="is to promote it"):
        hands.stepped(scene.canary, "ak", scene.now)


# Words and plans.


def test_what_matches_goes_over_only_while_the_canary_is_in_traffic() -> None:
    match, sticky = Match(kind="header", name="x-canary", value="1"), Sticky(kind="cookie", name="user")
    canary = started(match=match, sticky=sticky)
    assert (split_of(canary).match, split_of(canary).sticky, split_of(canary).subject) == (None, sticky, "c1")
    on = replace(canary, step=0, state="ramping")
    assert split_of(on).match == match
    assert split_of(replace(on, state="rolled_back")).match is None
    assert split_of(replace(on, state="paused", paused_by="breach")).match is None
    assert split_of(replace(on, state="paused", paused_by="user")).match == match


def test_what_the_service_says_changes_with_decisions_only() -> None:
    scene = Scene().until("ramping")
    said = told(scene.canary)
    assert said == "canary at 1 %: step 1 of 6"
    assert told(scene.looks(5).canary) == said
    assert told(replace(scene.canary, state="paused", message="errors: …")) == "canary paused at 1 %: errors: …"


def test_a_look_without_news_changes_nothing() -> None:
    canary = started()
    waits = next_step(canary, sight(serving=0, realised=None))
    assert waits is not None
    assert next_step(waits.canary, sight(serving=0, realised=None, now=NOW + timedelta(seconds=9))) is None


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ({"steps_permille": (10, 10, 1000)}, "plan.steps_permille"),
        ({"steps_permille": (10, 500)}, "plan.steps_permille"),
        ({"steps_permille": (0, 1000)}, "plan.steps_permille"),
        ({"steps_permille": (10, 1001)}, "plan.steps_permille"),
        ({"step_time_s": -1}, "plan.step_time_s"),
        ({"metrics": ("cpu",)}, "plan.metrics"),
        ({"on_breach": "laugh"}, "plan.on_breach"),
        ({"match": ("body", "x", "1")}, "plan.match.kind"),
        ({"match": ("header", "x y", "1")}, "plan.match.name"),
        ({"match": ("header", "x", "")}, "plan.match.value"),
        ({"sticky": ("cookie", "")}, "plan.sticky.name"),
        ({"error_limit_percent": float("nan")}, "plan.error_limit_percent"),
        ({"latency_limit_ratio": 0.9}, "plan.latency_limit_ratio"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_by_its_field(asked: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        planned(Asked(**asked))
    assert [e.path for e in caught.value.fields] == [path]


def test_a_plan_has_defaults() -> None:
    assert planned(Asked()) == Plan()
    assert Plan().steps_permille == WEIGHTS
    assert planned(Asked(steps_permille=(0, ALL), match=("query", "v", "2"))).biased
