"""What one copy keeps in memory."""

from __future__ import annotations

from msgspec.structs import replace

from easel_autoscaler.decide.decision import STEP_S, Decision, Held
from easel_autoscaler.model import Entry, Fleet
from easel_autoscaler.windows import Windows
from easel_contracts.facts import ServiceState
from easel_contracts.spec import Resources, RevisionSpec
from tests.unit.autoscaler.made import current, from_zero, hold, policy, second, service

STATE = service(policy(1, 4, down_s=10.0, concurrency=2.0))


def watched(fleet: Fleet, state: ServiceState, wanted: int, *, until_s: int, in_flight: int = 0) -> Entry:
    """A service that was looked at every second from 0 on."""
    entry = fleet.see(state, current(wanted))
    for at in range(until_s + 1):
        fleet.windows.add(second(0.0, in_flight=in_flight, ready=wanted), float(at))
        fleet.observe(entry, float(at))
    return entry


def test_steps_down_are_counted_from_the_last_one() -> None:
    """After a step the next waits STEP_S, though the window is long over."""
    fleet = Fleet(Windows())
    entry = watched(fleet, STATE, 4, until_s=20)
    step = fleet.verdict(entry, 20.0)
    assert isinstance(step, Decision)
    assert step.wanted == 2

    fleet.decided(entry, current(2, number=2), step, 20.0)

    assert isinstance(fleet.verdict(entry, 20.0 + STEP_S - 1), Held)


def test_a_service_seen_again_keeps_its_track_unless_its_policy_changed() -> None:
    """A status change does not restart the window; a new policy does, and the old wish is dropped."""
    fleet = Fleet(Windows())
    watched(fleet, STATE, 4, until_s=20)

    same = fleet.see(service(STATE.autoscaling, status="Running"), current(4))
    assert isinstance(fleet.verdict(same, 20.0), Decision)

    changed = fleet.see(service(policy(1, 4, down_s=10.0, qps=9.0), autoscaling_generation=2), current(4))
    assert changed.asked is None
    assert isinstance(fleet.verdict(changed, 20.0), Held)


def test_lost_metrics_drop_the_last_wish() -> None:
    """What the load asked for before the silence is not acted on."""
    fleet = Fleet(Windows())
    entry = watched(fleet, STATE, 2, until_s=5, in_flight=20)
    assert isinstance(fleet.verdict(entry, 5.0), Decision)

    held = fleet.observe(entry, 20.0)

    assert isinstance(held, Held)
    assert held.reason == "NoMetrics"


def test_only_running_services_with_an_autoscaler_are_watched() -> None:
    """The tick's work is proportional to them, and begins with the first decision."""
    fleet = Fleet(Windows())
    fleet.see(STATE, current(1))
    fleet.see(service(name="fixed"), current(1))
    fleet.see(service(policy(), name="stopped", wanted="stopped"), current(1))
    fleet.see(service(policy(), name="undecided"), None)
    assert [entry.state.name for entry in fleet.scaled()] == ["ocr"]

    fleet.forget("ocr")

    assert list(fleet.scaled()) == []


def woken(fleet: Fleet, state: ServiceState, first: int, at_s: float) -> Entry:
    """A service at zero that a request has just woken."""
    entry = fleet.see(state, current(0))
    fleet.windows.add_waiting(hold(1), at_s)
    step = fleet.observe(entry, at_s)
    assert isinstance(step, Decision)
    assert (step.before, step.wanted, step.reason) == (0, first, "Activated")
    fleet.decided(entry, current(first, number=2), step, at_s)
    return entry


def test_what_a_request_woke_stays_for_the_windows() -> None:
    """3 are started; the load of one is no reason to take 2 away before the scale-down window has passed."""
    fleet = Fleet(Windows())
    entry = woken(fleet, service(from_zero(first=3, down_s=20.0)), 3, 100.0)
    decided = {}
    for at in range(101, 130):
        if at > 104:  # ready, one request in flight all the time
            fleet.windows.add(second(0.0, in_flight=1, ready=3), float(at))
        else:
            fleet.windows.add_waiting(hold(1), float(at))
        decided[at] = fleet.observe(entry, float(at))

    first = next(at for at, outcome in decided.items() if isinstance(outcome, Decision))
    assert first == 127  # 20 s after 107, when three seconds first told of the load of one
    assert decided[first].reason == "ScaleIn"


def test_the_grace_begins_with_the_last_request() -> None:
    """Not with the start of the replica that it woke; a status change in between does not matter."""
    fleet = Fleet(Windows())
    state = service(from_zero(grace_s=30.0))
    entry = woken(fleet, state, 1, 100.0)
    gone = None
    for at in range(101, 180):
        fleet.windows.add(second(0.0, requests=int(at == 120), ready=1), float(at))
        entry = fleet.see(service(state.autoscaling, status=str(at)), current(1, number=2))
        outcome = fleet.observe(entry, float(at))
        if isinstance(outcome, Decision):
            gone = (at, outcome.wanted, outcome.reason)
            break

    assert gone == (150, 0, "ScaledToZero")


def test_the_time_of_a_start_is_learned_per_revision() -> None:
    """From the decision to the first second with a ready replica; a new revision may take longer."""
    fleet = Fleet(Windows())
    state = service(from_zero())
    fleet.windows.add(second(0.0, ready=1), 99.0)  # the replica that was leaving
    entry = woken(fleet, state, 1, 100.0)
    fleet.observe(entry, 101.0)
    assert entry.start_s is None

    fleet.windows.add(second(0.0, ready=1), 103.5)
    fleet.observe(entry, 104.0)
    assert entry.start_s == 3.5

    second_revision = RevisionSpec(number=2, resources=Resources(cpu=1, memory_mib=100), port=8000)
    assert fleet.see(service(state.autoscaling, revision=second_revision), entry.current).start_s is None


def test_nobody_waits_for_a_service_by_the_name_of_another() -> None:
    """Deleted and made again at once: what was heard of the first says nothing about the second."""
    fleet = Fleet(Windows())
    watched(fleet, STATE, 1, until_s=3)
    fleet.windows.add_waiting(hold(5), 3.0)
    assert fleet.windows.load(STATE.name, 3.0)

    fleet.see(replace(STATE, uid="another"), None)

    assert fleet.windows.load(STATE.name, 3.0) is None
    fleet.windows.add_waiting(hold(5), 4.0)
    fleet.forget(STATE.name)
    assert fleet.windows.awaited(4.0) == []
