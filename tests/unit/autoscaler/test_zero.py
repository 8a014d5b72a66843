"""The way to zero and back, step by step."""

from __future__ import annotations

import pytest

from easel_autoscaler.decide.decision import Decision, Held, decide
from easel_autoscaler.decide.load import Load
from easel_autoscaler.decide.recommend import Recommendation, recommend
from easel_autoscaler.decide.track import Span, Track, listen
from easel_contracts.facts import Rollout, ServiceState
from easel_contracts.spec import Autoscaling, Resources, RevisionSpec
from tests.unit.autoscaler.made import current, from_zero, policy, service, waiting

NOW = 10_000.0
GRACE_S = 60.0
IDLE = Load(totals={"concurrency": 0.0}, ready=1, at_s=NOW)


def quiet(for_s: float, until_s: float = NOW) -> Track:
    """Nobody asked for so long; the load asked for one replica all the time."""
    return Track(spans=(Span(1, until_s - for_s, until_s),), quiet_since_s=until_s - for_s, heard_s=until_s)


def outcome(
    limits: Autoscaling, wanted: int, load: Load | None, track: Track | None = None, **changes: object
) -> Decision | Held:
    asked = recommend(limits, wanted, load) if load else None
    return decide(service(limits, **changes), current(wanted), load, asked, track or Track(), NOW)


@pytest.mark.parametrize(
    ("limits", "wanted", "load", "after"),
    [
        (from_zero(), 0, waiting(1), 1),
        (from_zero(), 0, waiting(500), 1),
        (from_zero(first=3), 0, waiting(1), 3),
        (from_zero(high=2, first=2), 0, waiting(1), 2),
        (from_zero(qps=10.0), 0, waiting(1), 1),
        (from_zero(), 0, waiting(1, ready=1), 1),
        (from_zero(first=3), 1, waiting(1), 3),
        (policy(2, 5, up_s=30.0), 2, waiting(1), 2),
        (from_zero(first=3), 3, waiting(1), 3),
        (from_zero(first=3), 1, waiting(1, ready=1, concurrency=1.0), 1),
    ],
    ids=["first request", "a crowd makes no difference at once", "configured start", "start up to max",
         "qps target alone", "the last replica is still leaving", "none ready yet", "min above the start",
         "start under way", "one is ready"],
)  # fmt: skip
def test_what_the_first_waiting_request_makes(limits: Autoscaling, wanted: int, load: Load, after: int) -> None:
    """max(min, activation replicas) at once; told again, or with replicas on their way, nothing."""
    found = outcome(limits, wanted, load)

    assert (found.wanted if isinstance(found, Decision) else wanted) == after
    if after > wanted:
        assert isinstance(found, Decision)
        assert (found.before, found.reason) == (wanted, "Activated")


def test_the_sentence_of_a_start_has_the_numbers() -> None:
    """How many wait, and for how long."""
    one, three = outcome(from_zero(), 0, waiting(1)), outcome(from_zero(first=2), 1, waiting(3, oldest_s=4.5))

    assert one.message == "1 request waits for 0.02 s, and no replica is wanted"
    assert three.message == "3 requests wait, the first for 4.5 s, and no replica is ready"


def test_at_zero_only_a_waiting_request_counts() -> None:
    """Silence is expected there, and what the leaving replica still answers brings none back."""
    leaving = Load(totals={"qps": 50.0, "concurrency": 9.0}, ready=1, at_s=NOW, busy_s=NOW)

    for load in (None, IDLE, leaving):
        found = outcome(from_zero(first=2), 0, load)
        assert found == Held(reason="AtZero", message="no replica, and none is needed; the first request starts 2")
    assert recommend(from_zero(), 0, leaving) is None


@pytest.mark.parametrize(
    ("load", "track", "why"),
    [
        (IDLE, quiet(GRACE_S - 1), "the grace is not over"),
        (None, quiet(GRACE_S + 9), "no metrics now"),
        (IDLE, quiet(GRACE_S, until_s=NOW - 5.1), "no look at the load for 5 s"),
        (IDLE, Track(), "this process has just begun"),
        (waiting(1, ready=1, concurrency=0.0), quiet(GRACE_S), "a request waits"),
        (Load(totals={"concurrency": 0.0}, ready=1, at_s=NOW, busy_s=NOW), quiet(GRACE_S), "told since the last look"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
@pytest.mark.parametrize("wanted", [1, 3])
def test_what_keeps_the_last_replicas(wanted: int, load: Load | None, track: Track, why: str) -> None:
    """Zero only where nobody asked, as far as is known, for the whole grace."""
    found = outcome(from_zero(), wanted, load, track)

    assert isinstance(found, Held), why


@pytest.mark.parametrize("wanted", [1, 2, 7])
def test_all_go_when_the_grace_is_over(wanted: int) -> None:
    """However many there are, and though the scale-down window is longer than the grace."""
    found = outcome(from_zero(grace_s=GRACE_S, down_s=300.0), wanted, IDLE, quiet(GRACE_S))

    assert found == Decision(
        before=wanted, wanted=0, reason="ScaledToZero",
        message="no request for 60 s, and 60 s are the grace: no replica is needed",
    )  # fmt: skip


def test_min_of_one_is_never_idle() -> None:
    """The grace belongs to min 0."""
    found = outcome(policy(1, 5, concurrency=2.0), 1, IDLE, quiet(5000.0))

    assert isinstance(found, Held)
    assert found.reason == "OnTarget"


def test_the_ordinary_rules_leave_one() -> None:
    """Long after the scale-down window, but within the grace, 2 become 1 and stay 1."""
    limits, track = from_zero(grace_s=6000.0), quiet(5000.0)
    less, last = outcome(limits, 2, IDLE, track), outcome(limits, 1, IDLE, track)

    assert isinstance(less, Decision)
    assert (less.wanted, less.reason) == (1, "ScaleIn")
    assert "the last one is kept until no request came for 6000 s" in less.message
    assert last == Held(reason="IdleWaits", message="no request for 5000 s of the 6000 s after which none is kept")


def test_a_rollout_keeps_its_replicas() -> None:
    """It is judged by them."""
    stable = RevisionSpec(number=1, resources=Resources(cpu=1, memory_mib=100), port=8000)
    found = outcome(from_zero(), 1, IDLE, quiet(GRACE_S), rollout=Rollout(stable=stable, share_percent=20))

    assert isinstance(found, Held)
    assert found.reason == "RolloutRuns"


@pytest.mark.parametrize(
    ("instance", "load", "after"), [(0, None, 0), (4, None, 4), (99, None, 10), (0, waiting(2), 1), (4, waiting(2), 4)]
)
def test_first_decision(instance: int, load: Load | None, after: int) -> None:
    """metadata.instance within limits, which may be 0 unless somebody waits already."""
    state = service(from_zero(), instance=instance)
    first = decide(state, None, load, None, Track(), NOW)
    changed = decide(_set_again(state), current(2), load, None, Track(), NOW)

    assert isinstance(first, Decision)
    assert isinstance(changed, Decision)
    assert (first.wanted, first.reason) == (after, "Initial")
    assert (changed.before, changed.wanted, changed.reason) == (2, after, "InstanceSet")


def _set_again(state: ServiceState) -> ServiceState:
    return service(state.autoscaling, instance=state.instance, generation=2, instance_generation=2)


def test_a_new_generation_at_zero_stays_there() -> None:
    """And says so; a new min brings replicas at once."""
    kept = decide(service(from_zero(), generation=2), current(0), None, None, Track(), NOW)
    raised = decide(service(policy(2, 5), generation=2), current(0), None, None, Track(), NOW)

    assert isinstance(kept, Decision)
    assert (kept.before, kept.wanted, kept.reason) == (0, 0, "Kept")
    assert isinstance(raised, Decision)
    assert (raised.wanted, raised.reason) == (2, "Limits")


def test_stopped_services_are_not_woken() -> None:
    """Control alone says that they have no replicas."""
    found = decide(service(from_zero(), wanted="stopped"), current(0), waiting(9), None, Track(), NOW)

    assert isinstance(found, Held)
    assert found.reason == "NotRunning"


@pytest.mark.parametrize(
    ("limits", "wanted", "held", "wants"),
    [
        (from_zero(high=50), 0, 40, 20),
        (from_zero(high=50), 1, 41, 21),
        (from_zero(high=50), 20, 44, 20),
        (from_zero(high=50), 20, 3, 20),
        (from_zero(high=9), 1, 40, 9),
        (from_zero(high=50, first=5), 0, 2, 5),
        (from_zero(high=50, first=5, qps=1.0), 0, 4000, 5),
        (from_zero(high=50, first=5, qps=1.0, concurrency=10.0), 0, 90, 9),
    ],
)
def test_a_crowd_before_the_first_ready_replica(limits: Autoscaling, wanted: int, held: int, wants: int) -> None:
    """By what waits per replica where concurrency is a target; never fewer than are on their way."""
    found = recommend(limits, wanted, waiting(held))

    assert found is not None
    assert found.wants == wants
    assert all(given.current is None for given in found.inputs)


def test_a_crowd_is_explained() -> None:
    """The sentence shows the computation."""
    found = recommend(from_zero(high=5), 1, waiting(40, oldest_s=3.0))

    assert found is not None
    assert found.message == (
        "40 requests wait, the first for 3 s, and no replica is ready: 40 / 2 asks for 20, limited to max 5"
    )


def test_with_a_ready_replica_what_waits_counts_as_in_flight() -> None:
    """Many wait and some are ready: the ordinary formula on both together."""
    found = recommend(from_zero(high=50), 2, Load(totals={"concurrency": 30.0}, ready=2))

    assert found is not None
    assert found.wants == 15


def asked(track: Track, at_s: float, busy_s: float | None = None) -> Track:
    return listen(track, Load(totals={}, ready=1, at_s=at_s, busy_s=busy_s))


def test_the_grace_counts_from_the_last_request() -> None:
    """Not from the look at it, nor from the start of the replica."""
    track = asked(Track(), 100.0)
    assert track.quiet_s(100.0) == 0.0

    track = asked(asked(track, 104.0, busy_s=104.0), 107.0, busy_s=104.0)
    assert track.quiet_s(107.0) == 3.0
    assert asked(track, 111.0).quiet_s(111.0) == 7.0


def test_while_a_request_is_there_nothing_is_quiet() -> None:
    """None, which is not a grace of 0 s."""
    track = asked(asked(Track(), 100.0), 101.0, busy_s=101.0)

    assert track.quiet_s(101.0) is None


def test_a_gap_begins_the_grace_anew() -> None:
    """What came during the gap is not known."""
    track = asked(asked(Track(), 100.0), 104.0)
    assert track.quiet_s(109.1) is None

    track = asked(track, 109.1, busy_s=103.0)

    assert track.quiet_s(110.0) == 0.0


def test_a_recommendation_never_asks_for_none() -> None:
    """Zero is the grace's alone."""
    found: Recommendation | None = recommend(from_zero(), 3, Load(totals={"concurrency": 0.0}, ready=3))

    assert found is not None
    assert found.wants == 1


def test_while_requests_wait_nothing_is_taken_away() -> None:
    """The seconds just counted may be those of the replica that has left."""
    found = recommend(from_zero(first=3, qps=10.0), 3, waiting(1, ready=1, qps=2.0))

    assert found is not None
    assert found.wants == 3
    assert found.message.endswith("; 1 request waits for 0.02 s, so 3 stay")
