"""What no canary does, whatever replicas, gateways, traffic and people do, in whatever order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from easel_contracts.errors import Conflict
from easel_control.decide.canary import ALL, VERDICTS, split_of
from easel_control.decide.canary_hands import HANDS
from easel_control.decide.canary_harm import finishable, promotable
from tests.unit.control.canary_scenes import Scene

plans = st.fixed_dictionaries({
    "steps_permille": st.sampled_from([(10, 100, 1000), (500, 1000), (1000,), (10, 50, 250, 500, 1000)]),
    "step_time_s": st.sampled_from([1, 5]),
    "metrics": st.sampled_from([("errors",), ("errors", "latency")]),
    "on_breach": st.sampled_from(["rollback", "pause"]),
    "manual": st.sampled_from([False, False, True]),
    "min_requests": st.sampled_from([0, 1]),
    "time_limit_s": st.sampled_from([60, 100_000]),
})  # fmt: skip

moves = st.one_of(
    st.tuples(st.just("looks"), st.integers(1, 40)),
    st.tuples(st.just("errors"), st.sampled_from([0, 0, 1, 10, 90])),
    st.tuples(st.just("slow"), st.sampled_from([0, 0, 5, 60])),
    st.tuples(st.just("rate"), st.sampled_from([0, 1, 50, 300])),
    st.tuples(st.just("serving"), st.sampled_from([None, None, 0, 1, 5, 10])),
    st.tuples(st.just("wanted"), st.sampled_from([0, 1, 10])),
    st.tuples(st.just("realised"), st.sampled_from([None, 0, 10, 1000, "live"])),
    st.tuples(st.just("fail"), st.sampled_from(["", "", "", "1 replica failed"])),
    st.tuples(st.just("there"), st.sampled_from(["running", "running", "running", "running", "stopped", "gone"])),
    st.tuples(st.just("hand"), st.sampled_from([*HANDS])),
)


def act(scene: Scene, what: str, value: Any) -> None:
    """What somebody else does."""
    match what:
        case "errors":
            scene.errors = (0, value)
        case "slow":
            scene.slow = (0, value)
        case "rate" | "serving" | "wanted":
            setattr(scene, what, value)
        case "realised":
            scene.more.pop("realised", None)
            if value != "live":
                scene.more["realised"] = value
        case "fail":
            scene.more["replicas_fail"] = value
        case "there":
            scene.more["there"] = value
        case "hand":
            try:
                move = HANDS[value](scene.canary, "ak", scene.now)
            except Conflict:
                return
            scene.canary = move.canary if move is not None else scene.canary


def looked(scene: Scene) -> None:
    """One look, and what must hold after it. Scene.look checks that no weight rises without its replicas."""
    before = scene.canary
    scene.look()
    after = scene.canary
    if after.state in VERDICTS and after.state != "promoted":
        assert (after.weight_permille, split_of(after).match) == (0, None), "a breach or abortion with a weight"
    if after.is_fallen:
        assert after.weight_permille == 0, "paused by a breach with a weight"
    rises = after.weight_permille > before.weight_permille
    assert not rises or after.state in ("ramping", "promoting")
    all_at_once = len(after.plan.steps_permille) == 1
    if rises and after.weight_permille == ALL and not (after.by_hand or after.plan.manual or all_at_once):
        assert promotable(after) == "", "all requests go over without having been shown to be not worse"
    if after.state == "promoted" and not after.by_hand:
        assert not after.plan.manual, "promoted by itself though steps are taken by hand"
        assert not all_at_once or finishable(after) == ""
        assert after.evidence.candidate.requests > 0, "promoted without data"
    assert len(after.spans) <= 3, "spans that are looked at are forgotten"
    assert after.through_unix_s >= before.through_unix_s


@settings(max_examples=300, deadline=None)
@given(plans, st.lists(moves, max_size=25))
def test_no_canary_breaks_a_promise(plan: dict[str, Any], life: list[tuple[str, Any]]) -> None:
    scene = Scene(**plan)
    for what, value in life:
        if what != "looks":
            act(scene, what, value)
        for _ in range(value if what == "looks" else 1):
            if not scene.canary.is_on:
                return
            looked(scene)


@settings(max_examples=40, deadline=None)
@given(plans, st.lists(moves, max_size=12), st.sampled_from([30, 60]))
def test_a_breach_ends_at_weight_zero(plan: dict[str, Any], life: list[tuple[str, Any]], errors: int) -> None:
    """From wherever a canary is in traffic: once most of its answers are bad, its weight comes down to 0 and stays."""
    scene = Scene(**plan)
    if plan["manual"]:
        act(scene, "hand", "step")
    scene.until("ramping", "promoting")
    for what, value in life:
        if scene.canary.is_on and what not in ("there", "hand"):
            act(scene, what, value)
            scene.look()
    if not scene.canary.is_on or scene.canary.weight_permille == 0:
        return
    scene.more, scene.serving, scene.wanted, scene.rate = {}, None, 10, 1000
    scene.errors = (0, errors)
    for _ in range(120):
        if scene.canary.is_on:
            looked(scene)
    assert scene.canary.weight_permille == 0
    assert scene.canary.state in ("rolled_back", "paused")
