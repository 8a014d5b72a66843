"""What is decided, step by step."""

from __future__ import annotations

from easel_autoscaler.decide.decision import STEP_S, Decision, Held, decide
from easel_autoscaler.decide.recommend import Recommendation
from easel_autoscaler.decide.track import Span, Track
from easel_contracts.facts import ServiceState
from tests.unit.autoscaler.made import current, policy, service

NOW = 10_000.0


def asked(wants: int) -> Recommendation:
    return Recommendation(wants=wants, message=f"load asks for {wants}", inputs=())


def steady(wants: int, for_s: float) -> Track:
    return Track(spans=(Span(wants, NOW - for_s, NOW),))


def outcome(
    state: ServiceState, wanted: int | None, wants: int | None, track: Track | None = None, generation: int = 1
) -> Decision | Held:
    known = None if wanted is None else current(wanted, generation)
    recommendation = None if wants is None else asked(wants)
    return decide(state, known, None, recommendation, track or steady(wants or 0, 0.0), NOW)


def test_fixed_policy() -> None:
    """Without an autoscaler metadata.instance is decided once per generation."""
    state = service(instance=3)

    assert outcome(state, None, None) == Decision(
        before=3, wanted=3, reason="Fixed",
        message="no autoscaler is set, so metadata.instance counts: 3 replicas",
    )  # fmt: skip
    assert isinstance(outcome(state, 3, None), Held)
    changed = outcome(service(instance=2, generation=2, instance_generation=2), 3, None)
    assert isinstance(changed, Decision)
    assert (changed.before, changed.wanted) == (3, 2)


def test_first_decision_is_the_instance_count_within_limits() -> None:
    """It needs no metrics, so that nothing waits for them."""
    first = outcome(service(policy(2, 5), instance=1), None, None)

    assert isinstance(first, Decision)
    assert (first.wanted, first.reason) == (2, "Initial")


def test_a_name_used_again_starts_anew() -> None:
    """The decision of a deleted service says nothing about its successor."""
    found = decide(service(policy(), uid="u2"), current(7, generation=9), None, None, Track(), NOW)

    assert isinstance(found, Decision)
    assert (found.wanted, found.reason) == (1, "Initial")


def test_instance_set_by_hand() -> None:
    """`easel scale` holds until the load asks for something else."""
    found = outcome(service(policy(), instance=4, generation=2, instance_generation=2), 1, 1)

    assert isinstance(found, Decision)
    assert (found.before, found.wanted, found.reason) == (1, 4, "InstanceSet")


def test_limits_apply_at_once_and_without_metrics() -> None:
    """A new max is not a matter of load."""
    found = outcome(service(policy(1, 3), generation=2), 8, None)

    assert isinstance(found, Decision)
    assert (found.wanted, found.reason) == (3, "Limits")


def test_no_metrics_hold() -> None:
    """Unknown is not zero."""
    found = outcome(service(policy()), 3, None, steady(1, 500.0))

    assert isinstance(found, Held)
    assert found.reason == "NoMetrics"


def test_more_at_once() -> None:
    """The default scale-up window is 0 s."""
    found = outcome(service(policy()), 2, 5)

    assert isinstance(found, Decision)
    assert (found.before, found.wanted, found.reason) == (2, 5, "ScaleOut")


def test_scale_up_window() -> None:
    """More only after the load asked for it the whole window, and no more than the least asked for in it."""
    state = service(policy(up_s=10.0))
    rising = Track(spans=(Span(3, NOW - 12, NOW - 4), Span(6, NOW - 4, NOW)))

    early, late = outcome(state, 2, 6, steady(6, 9.0)), outcome(state, 2, 6, rising)

    assert isinstance(early, Held)
    assert early.reason == "ScaleOutWaits"
    assert isinstance(late, Decision)
    assert late.wanted == 3


def test_fewer_only_after_the_whole_window() -> None:
    """Neither an unfilled window nor a higher wish inside it lets a replica go."""
    state = service(policy(down_s=300.0))
    peak = Track(spans=(Span(1, NOW - 400, NOW - 200), Span(3, NOW - 200, NOW - 199), Span(1, NOW - 199, NOW)))

    short, peaked, due = (
        outcome(state, 3, 1, steady(1, 299.0)), outcome(state, 3, 1, peak), outcome(state, 3, 1, steady(1, 300.0))
    )  # fmt: skip

    assert isinstance(short, Held)
    assert "known for 299 s of the 300 s" in short.message
    assert isinstance(peaked, Held)
    assert "but 3 were asked for within the last 300 s" in peaked.message
    assert isinstance(due, Decision)
    assert (due.wanted, due.reason) == (2, "ScaleIn")


def test_scale_in_is_gradual() -> None:
    """Half at a time, STEP_S apart, never below what was asked for in the window."""
    state = service(policy(high=100))
    just_now = Track(spans=(Span(1, NOW - 400, NOW),), decreased_s=NOW - STEP_S + 1)
    plateau = Track(spans=(Span(9, NOW - 400, NOW - 100), Span(1, NOW - 100, NOW)))

    half, soon, most = (
        outcome(state, 10, 1, steady(1, 400)), outcome(state, 10, 1, just_now), outcome(state, 10, 1, plateau)
    )  # fmt: skip

    assert isinstance(half, Decision)
    assert half.wanted == 5
    assert isinstance(soon, Held)
    assert soon.reason == "ScaleInSteps"
    assert isinstance(most, Decision)
    assert most.wanted == 9


def test_a_new_generation_is_told_even_when_nothing_changes() -> None:
    """The scheduler need not wait for a decision that never comes."""
    found = outcome(service(policy(), generation=2), 3, 3)

    assert isinstance(found, Decision)
    assert (found.before, found.wanted, found.reason) == (3, 3, "Kept")


def test_stopped_and_deleted_services_get_no_decision() -> None:
    """Control alone says that they have no replicas."""
    for wanted in ("stopped", "deleted"):
        assert isinstance(outcome(service(policy(), wanted=wanted, generation=5), None, 9), Held)
