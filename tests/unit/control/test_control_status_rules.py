"""A service's status from what is wanted and what others told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from easel_contracts.facts import ReplicaState, ScaleState
from easel_contracts.spec import Autoscaling
from easel_control.decide.explain import explain
from easel_control.decide.status import status_of
from easel_control.decide.view import wanted_count
from tests.unit.control.rows import NOW, SPEC, replica, row, world


def seen(*args: object, **kwargs: object) -> tuple[str, str]:
    got = status_of(*args, **kwargs)  # type: ignore[arg-type]
    return got.status, got.reason


def test_nothing_yet_stays_creating() -> None:
    assert seen(row(reason="Admitted"), world()) == ("Creating", "Admitted")


def test_ready_is_not_running_before_the_route_has_it() -> None:
    both = (replica("a"), replica("b"))

    assert seen(row(), world(*both)) == ("Waiting", "ReplicasNotReady")
    assert seen(row(), world(*both, route=None)) == ("Waiting", "ReplicasNotReady")
    assert seen(row(), world(*both, routed=("a", "b"))) == ("Running", "Running")


def test_a_first_start_is_whole_before_it_is_running() -> None:
    got = status_of(row(status="Waiting"), world(replica("a"), replica("b", "starting"), routed=("a",)))

    assert (got.status, got.message) == ("Waiting", "Total 2, Pending 1, Running 1")


def test_a_first_start_whose_rest_is_stuck_is_running_and_says_so() -> None:
    rest = replica("b", "pending", cause="NoCapacity", message="memory short by 900 MiB")
    got = status_of(row(status="Waiting"), world(replica("a"), rest, routed=("a",)))

    assert (got.status, got.reason) == ("Running", "PartlyServing")
    assert "memory short by 900 MiB" in got.message


def test_a_lost_replica_leaves_a_service_running() -> None:
    whole = row(status="Running", settled=2)

    assert seen(whole, world(replica("a"), replica("b", "starting"), routed=("a",))) == ("Running", "PartlyServing")
    assert seen(whole, world(replica("b", "starting"))) == ("Waiting", "ReplicasNotReady")


def test_scaling_out_and_in() -> None:
    whole = row(status="Running", settled=1, instance=3)
    three = (replica("a"), replica("b", "starting"), replica("c", "pending"))

    assert seen(whole, world(*three, routed=("a",))) == ("Scaling", "ScalingOut")
    less = row(status="Running", settled=3, instance=1)
    assert seen(less, world(replica("a"), replica("b"), routed=("a", "b"))) == ("Scaling", "ScalingIn")
    assert seen(less, world(replica("a"), replica("b", "draining"), routed=("a",))) == ("Running", "Running")


def test_no_room_waits_with_the_numbers() -> None:
    got = status_of(row(), world(replica("a", "pending", cause="NoCapacity", message="cpu short by 3")))

    assert (got.status, got.reason) == ("Waiting", "NoCapacity")
    assert "cpu short by 3" in got.message
    assert "metadata.cpu" in got.message


def test_what_cannot_run_is_failed_with_cause_and_hint() -> None:
    loop = replica("a", "starting", cause="CrashLoop", message="exited with 1 five times", restarts=5)
    got = status_of(row(status="Waiting"), world(loop))

    assert (got.status, got.reason) == ("Failed", "CrashLoop")
    assert "exited with 1 five times" in got.message
    assert "easel logs" in got.message


def test_one_exit_is_not_yet_a_failure() -> None:
    assert seen(row(), world(replica("a", "starting", cause="Exited", restarts=1))) == ("Waiting", "Exited")
    assert seen(row(), world(replica("a", "starting", cause="Exited", restarts=3))) == ("Failed", "Exited")


def test_failed_holds_while_the_next_try_starts() -> None:
    gone = replica("a", "failed", cause="CommandFailed", message="no such program")

    assert seen(row(status="Failed"), world(replica("b", "starting"), failed=(gone,))) == ("Failed", "CommandFailed")
    assert seen(row(status="Failed", instance=1), world(replica("b"), failed=(gone,), routed=("b",)))[0] == "Running"


def test_failures_of_an_older_revision_do_not_count() -> None:
    newer = row(status="Updating", revision=replace(SPEC, number=2), revision_generation=2)
    old = replica("a", "failed", cause="CrashLoop")

    assert seen(newer, world(replica("b", "starting", revision=2, generation=2), failed=(old,)))[0] == "Waiting"


def update(*news: ReplicaState, routed: tuple[str, ...] = ("a", "b")) -> tuple[str, str]:
    newer = row(status="Updating", settled=2, revision=replace(SPEC, number=2), revision_generation=2)
    return seen(newer, world(replica("a"), replica("b"), *news, routed=routed))


def test_an_update_is_updating_until_the_old_are_gone() -> None:
    new: dict[str, Any] = {"revision": 2, "generation": 2}

    assert update()[0] == "Updating"
    assert update(replica("c", "starting", **new))[0] == "Updating"
    assert update(replica("c", **new), routed=("a", "b", "c")) == ("Updating", "RollingOut")
    both = (replica("c", **new), replica("d", **new))
    assert update(*both, routed=("c", "d")) == ("Updating", "ReplacingOld")


def test_an_update_that_cannot_start_fails_and_says_that_the_old_serve() -> None:
    newer = row(status="Updating", revision=replace(SPEC, number=2), revision_generation=2)
    bad = replica("c", "starting", revision=2, generation=2, cause="CrashLoop", message="boom")
    got = status_of(newer, world(replica("a"), bad, routed=("a",)))

    assert (got.status, got.reason) == ("Failed", "CrashLoop")
    assert "1 replicas of another revision go on serving Hint: " in got.message


def test_the_old_revision_counts_while_the_new_one_comes_up() -> None:
    """An update of one replica never says that nothing runs while the old one answers."""
    newer = row(status="Updating", instance=1, settled=1, revision=replace(SPEC, number=2), revision_generation=2)
    new: dict[str, Any] = {"revision": 2, "generation": 2}
    rolling = status_of(newer, world(replica("a"), replica("b", "starting", **new), routed=("a",)))

    assert (rolling.status, rolling.running, rolling.total) == ("Updating", 1, 1)
    assert rolling.message == (
        "Total 1, Pending 0, Running 1; revision 2 comes up (0 of 1 serve) while revision 1 serves"
    )
    unready = status_of(newer, world(replica("a"), replica("b", "starting", **new)))
    assert (unready.running, unready.message) == (0, "Total 1, Pending 1, Running 0")
    both = status_of(newer, world(replica("a"), replica("b", **new), routed=("a", "b")))
    assert both.running == 1


def test_a_restart_says_so_while_the_old_replicas_serve() -> None:
    again = row(status="Updating", settled=1, instance=1, revision=replace(SPEC, restart_nonce=1), generation=4)
    got = status_of(again, world(replica("a"), replica("b", "starting", restart_nonce=1), routed=("a",)))

    assert "while those from before the restart serve" in got.message


def test_explain_says_a_hint_once_and_names_the_service() -> None:
    loop = replica("a", "starting", cause="CrashLoop", message="exited with 1 five times", restarts=5)
    seen_ = world(loop, replica("b", "starting", cause="CrashLoop", message="exited with 1 five times", restarts=5))
    got = status_of(row(status="Waiting"), seen_)
    lines = explain(row(status=got.status, reason=got.reason, message=got.message), seen_)
    text = " ".join(f"{line.message} {line.hint}" for line in lines)

    assert text.count("read its last lines") == 1
    assert "easel logs ocr" in text
    assert "NAME" not in text


def test_a_restart_counts_only_replicas_started_after_it() -> None:
    """By the restart's nonce, not by generations: the way back is to replicas of an older generation."""
    again = row(status="Updating", settled=1, instance=1, revision=replace(SPEC, restart_nonce=1), generation=4)

    assert seen(again, world(replica("a", generation=9), routed=("a",)))[0] == "Updating"
    assert seen(again, world(replica("b", restart_nonce=1), routed=("b",)))[0] == "Running"


def test_replicas_of_an_earlier_service_of_this_name_do_not_count() -> None:
    anew = row(generation=5, first_generation=5, instance=1)
    gone = replica("a", "failed", cause="CrashLoop", generation=3)

    assert seen(anew, world(failed=(gone,)))[0] == "Creating"
    assert seen(anew, world(failed=(replace(gone, generation=5),)))[0] == "Failed"


def test_stopping_and_stopped() -> None:
    stop = row(status="Stopping", wanted="stopped")

    assert seen(stop, world(replica("a", "draining")))[0] == "Stopping"
    assert seen(stop, world())[0] == "Stopped"


def test_deleting_ends_when_replicas_and_route_are_gone() -> None:
    gone = row(status="Deleting", wanted="deleted")

    assert not status_of(gone, world(replica("a", "draining"))).gone
    assert not status_of(gone, world()).gone
    assert status_of(gone, world(route=None)).gone


def test_the_autoscaler_decides_once_it_has_seen_the_change() -> None:
    old = ScaleState(service="ocr", generation=1, number=7, before=1, wanted=5, reason="r", message="m")

    assert wanted_count(row(), old) == 5
    assert wanted_count(row(instance=3, instance_generation=2, generation=2), old) == 3
    policy = Autoscaling(min=4, max=6, targets=(("qps", 1.0),))
    assert wanted_count(row(autoscaling=policy, autoscaling_generation=2), old) == 4


def test_phases_are_kept_when_the_service_is_complete() -> None:
    route = world(routed=("a",)).route
    assert route is not None
    there = world(
        replica("a", phase_s={"start": 1.0}), route=replace(route, apply_ms=20.0), now=NOW + timedelta(seconds=3)
    )

    assert status_of(row(instance=1), there).phase_s == {"start": 1.0, "route": 0.02, "total": 3.0}
