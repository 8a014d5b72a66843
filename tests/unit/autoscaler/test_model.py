"""What one copy keeps in memory."""

from __future__ import annotations

from easel_autoscaler.decide.decision import STEP_S, Decision, Held
from easel_autoscaler.model import Entry, Fleet
from easel_autoscaler.windows import Windows
from easel_contracts.facts import ServiceState
from tests.unit.autoscaler.made import current, policy, second, service

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
