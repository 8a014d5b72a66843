"""A service's status at zero, waking up, and while it goes from one revision to another."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from easel_contracts.facts import ReplicaState, RouteState, ScaleState
from easel_contracts.spec import Autoscaling, RolloutPolicy
from easel_control.decide.explain import explain
from easel_control.decide.rollout import begun
from easel_control.decide.status import Status, status_of
from easel_control.model import Reverted
from tests.unit.control.rows import NOW, SPEC, replica, row, world


def seen(*args: object, **kwargs: object) -> tuple[str, str]:
    got = status_of(*args, **kwargs)  # type: ignore[arg-type]
    return got.status, got.reason


ZERO = Autoscaling(min=0, max=3, targets=(("qps", 1.0),))
NONE_WANTED = ScaleState(service="ocr", generation=1, number=1, before=1, wanted=0, reason="Idle", message="idle")
HOLDS = RouteState(service="ocr", generation=1, state="probed", version="v", replicas=(), holding=True)


def zero(*replicas: ReplicaState, status: str = "Running", wanted: int = 0, **more: Any) -> tuple[str, str]:
    before = row(status=status, settled=1, autoscaling=more.pop("autoscaling", ZERO), **more.pop("row", {}))
    scale = replace(NONE_WANTED, wanted=wanted)
    return seen(before, world(*replicas, scale=scale, **{"route": HOLDS, **more}))


def test_zero_is_running_once_the_gateway_holds() -> None:
    assert zero(replica("a"), route=replace(HOLDS, holding=False, replicas=("a",))) == ("Scaling", "ScalingIn")
    assert zero(replica("a")) == ("Scaling", "ScalingIn")
    assert zero(replica("a", "draining")) == ("Running", "ScaledToZero")
    for route in (None, replace(HOLDS, holding=False), replace(HOLDS, state="acknowledged")):
        assert zero(route=route) == ("Scaling", "ScalingIn")
        assert zero(route=route, status="Creating") == ("Waiting", "RouteNotReady")
    assert zero(status="Creating") == ("Running", "ScaledToZero")


def test_zero_without_holding_is_what_was_asked_for_and_says_so() -> None:
    plain = replace(ZERO, intercept_traffic=False)
    before = row(status="Running", autoscaling=plain)
    got = status_of(before, world(scale=NONE_WANTED, route=replace(HOLDS, holding=False)))

    assert (got.status, got.reason) == ("Running", "ScaledToZero")
    assert "503" in got.message
    up = zero(replica("a", "starting"), wanted=1, autoscaling=plain, route=replace(HOLDS, holding=False))
    assert up == ("Waiting", "ReplicasNotReady")


def test_waking_up_is_running_as_long_as_held_requests_would_be_answered() -> None:
    assert zero(wanted=1) == ("Running", "WakingUp")
    assert zero(replica("a", "starting"), wanted=1) == ("Running", "WakingUp")
    assert zero(replica("a", "starting"), wanted=1, status="Waiting") == ("Waiting", "ReplicasNotReady")
    assert zero(replica("a", "starting"), wanted=1, route=replace(HOLDS, holding=False))[0] == "Waiting"
    assert zero(replica("a", "pending", cause="NoCapacity"), wanted=1) == ("Waiting", "NoCapacity")
    assert zero(replica("a", "starting", cause="Exited", restarts=1), wanted=1) == ("Waiting", "Exited")
    assert zero(replica("a", "starting", cause="CrashLoop"), wanted=1) == ("Failed", "CrashLoop")
    assert zero(replica("a"), wanted=1, route=replace(HOLDS, replicas=("a",))) == ("Running", "Running")
    always = replace(ZERO, min=1)
    assert zero(replica("a", "starting"), wanted=1, autoscaling=always)[0] == "Waiting"


def test_a_replica_that_was_isolated_counts_for_nothing() -> None:
    whole = row(status="Running", settled=2)
    out = replica("c", out_of_traffic="isolated")

    assert seen(whole, world(replica("a"), replica("b"), out, routed=("a", "b", "c"))) == ("Running", "Running")
    assert seen(whole, world(replica("a"), out, routed=("a", "c"))) == ("Running", "PartlyServing")
    assert seen(whole, world(replica("a"), replica("b", out_of_traffic="restarting"), routed=("a", "b"))) == (
        "Running", "PartlyServing",
    )  # fmt: skip
    assert seen(row(status="Stopping", wanted="stopped"), world(out))[0] == "Stopping"


def rolled(*news: ReplicaState, routed: tuple[str, ...] = ("a", "b"), **rollout: Any) -> Status:
    on = begun(SPEC, RolloutPolicy(), NOW, interrupt=False)
    newer = row(status="Updating", settled=2, proven=True, revision=replace(SPEC, number=2),
                rollout=replace(on, **rollout))  # fmt: skip
    return status_of(newer, world(replica("a"), replica("b"), *news, routed=routed))


def test_a_rollout_says_how_far_it_is() -> None:
    up = replica("c", revision=2)
    got = rolled(up, routed=("a", "b", "c"), share_percent=50)

    assert (got.status, got.reason) == ("Updating", "RollingOut")
    assert got.message == (
        "Total 2, Pending 0, Running 2; revision 2, wave 2 of 3 (50 %): 1 of 1 serve, 2 of revision 1 serve meanwhile"
    )


def test_a_paused_rollout_says_why_and_what_follows() -> None:
    bad = replica("c", "failed", revision=2, cause="CrashLoop", message="boom")
    got = rolled(bad, state="paused", paused_at=NOW, reason="RevisionFailing", cause="CrashLoop",
                 message="1 replica of the new revision failed; c: boom")  # fmt: skip

    assert (got.status, got.reason, got.running) == ("Updating", "RolloutPaused", 2)
    assert "paused: 1 replica of the new revision failed; c: boom" in got.message
    assert "it goes back to revision 1 at 2026-01-01 00:00:30 UTC" in got.message
    hint = got.message.partition(" Hint: ")[2]
    assert "`easel logs ocr --previous`" in hint
    assert "`easel rollout ocr revert`" in hint
    held = rolled(state="paused", paused_at=NOW, reason="PausedByUser", message="ek1 paused it")
    assert "it goes back" not in held.message


def test_a_rollout_without_room_waits_and_says_what_to_do() -> None:
    got = rolled(replica("c", "pending", revision=2, cause="NoCapacity", message="cpu short by 1"))

    assert (got.status, got.reason) == ("Updating", "NoCapacity")
    assert "cpu short by 1" in got.message
    assert "--allow-interruption" in got.message
    assert "max_unavailable" in got.message


def test_a_rollout_in_which_nothing_answers_is_not_called_updating_when_it_cannot_run() -> None:
    bad = replica("c", "starting", revision=2, cause="CrashLoop", message="boom")

    assert (rolled(bad, routed=()).status, rolled(routed=()).status) == ("Failed", "Updating")


def test_what_is_left_of_a_rollout_that_was_taken_back_is_rolling_back() -> None:
    back = Reverted(number=2, reason="RevisionFailing", message="revision 2 was given up", at=NOW)
    before = row(status="Updating", settled=2, proven=True, reverted=back)
    left = replica("c", revision=2)
    got = status_of(before, world(replica("a"), replica("b"), left, routed=("a", "b", "c")))
    assert (got.status, got.reason) == ("Updating", "RollingBack")
    done = status_of(before, world(replica("a"), replica("b"), routed=("a", "b")))
    assert (done.status, done.reason, done.message) == (
        "Running", "RolledBack", "Service is running; revision 2 was given up",
    )  # fmt: skip
    lines = {line.code: line.message for line in explain(before, world(replica("a")))}
    assert "revision 2 was given up" in lines["RolledBack"]


def test_explain_tells_whose_replica_each_is() -> None:
    on = begun(SPEC, RolloutPolicy(), NOW, interrupt=True)
    newer = row(status="Updating", settled=2, revision=replace(SPEC, number=3), rollout=on)
    there = world(replica("a"), replica("b", revision=2), replica("c", revision=3, out_of_traffic="isolated"))
    text = {line.message for line in explain(newer, there)}

    assert any(t.startswith("a is ready, revision 1, stable until the rollout is over") for t in text)
    assert any(t.startswith("b is ready, revision 2, to be replaced") for t in text)
    assert any(t.startswith("c is ready, present") and "(isolated)" in t for t in text)
    assert any("old replicas may make room" in t for t in text)


def test_what_served_is_proven() -> None:
    assert not status_of(row(), world(replica("a"))).proven
    assert status_of(row(), world(replica("a"), routed=("a",))).proven
    assert rolled(replica("c", revision=2), routed=("c",)).proven
