"""From one-second metrics to a load; memory of recommendations."""

from __future__ import annotations

from easel_autoscaler.decide.load import NEXT_WAIT_S, WAITING_FRESH_S, Sample, Wait, Waiting, measure
from easel_autoscaler.decide.track import Span, Track, after_change, remember
from easel_autoscaler.windows import Windows
from tests.unit.autoscaler.made import hold, policy, second, service


def samples(count: int, *, until_s: float = 100.0, requests: int = 20, in_flight: int = 4) -> list[Sample]:
    return [Sample(until_s - age, 1.0, requests, in_flight, 2) for age in range(count)]


def test_means_per_ready_replica() -> None:
    """Totals are means over what was measured, divided by the replicas that are ready."""
    found = measure(samples(10), (), 100.0)

    assert found is not None
    assert found.per_replica("qps") == 10.0
    assert found.per_replica("concurrency") == 2.0


def test_two_monitors_do_not_double_the_load() -> None:
    """The same second told twice is the same load."""
    assert measure(samples(10) * 2, (), 100.0) == measure(samples(10), (), 100.0)


def test_too_little_is_not_believed() -> None:
    """Half of a metric's window must be measured: 5 s for qps, 2.5 s for concurrency."""
    found = measure(samples(3), (), 100.0)

    assert found is not None
    assert found.per_replica("qps") is None
    assert found.per_replica("concurrency") == 2.0


def test_silence_is_not_zero() -> None:
    """Five seconds after the last sample nothing is known."""
    assert measure(samples(10), (), 105.0) is not None
    assert measure(samples(10), (), 105.1) is None
    assert measure([], (), 105.1) is None


def test_no_ready_replica_means_unknown() -> None:
    """There is no load per replica without replicas."""
    found = measure([Sample(100.0 - age, 1.0, 5, 5, 0) for age in range(10)], (), 100.0)

    assert found is not None
    assert found.per_replica("qps") is None


def test_windows_forget_what_fell_silent() -> None:
    """Memory does not grow with names that were ever used."""
    windows = Windows()
    windows.add(second(0.0), 100.0)
    windows.forget_silent(119.0)
    assert len(windows) == 1

    windows.forget_silent(121.0)

    assert len(windows) == 0


def test_a_gap_begins_the_track_anew() -> None:
    """A window counts only when it was watched all along."""
    track = remember(remember(Track(), 1, 100.0, 300.0), 1, 103.0, 300.0)
    assert track.covered_s(104.0) == 4.0

    gapped = remember(track, 1, 110.0, 300.0)

    assert gapped.spans == (Span(1, 110.0, 110.0),)
    assert track.covered_s(110.0) == 0.0


def test_tracks_forget_what_no_window_reaches() -> None:
    """What is kept still covers the longest window."""
    track = Track()
    for at in range(1000):
        track = remember(track, at % 3, float(at), 20.0)

    assert len(track.spans) <= 22
    assert track.covered_s(999.0) >= 20.0


def test_a_changed_policy_begins_the_track_anew() -> None:
    """What was recommended for other targets, or before someone set the count, says nothing now."""
    track = remember(Track(), 1, 100.0, 300.0)
    before = service(policy())

    assert after_change(track, before, service(policy(), generation=2)).spans == track.spans
    assert after_change(track, before, service(policy(), generation=2, autoscaling_generation=2)).spans == ()
    assert after_change(track, before, service(policy(), generation=2, instance_generation=2)).spans == ()
    assert after_change(track, before, service(policy(), uid="u2")).spans == ()


def test_waiting_requests_are_known_without_any_sample() -> None:
    """At zero the gateway has no cluster to count for; who waits is told by the router."""
    found = measure([], [Wait(99.0, 3, 0.5)], 100.0)

    assert found is not None
    assert (found.waiting, found.ready, found.totals) == (Waiting(3, 1.5), 0, {})
    assert found.busy_s == found.at_s == 99.0


def test_silence_means_that_none_waits() -> None:
    """One lost message is bridged; a told 0 counts at once."""
    last_s = 100.0 - WAITING_FRESH_S
    bridged = measure([], [Wait(last_s, 3, 0.5)], 100.0)
    assert bridged is not None
    assert bridged.waiting == Waiting(3, 0.5 + WAITING_FRESH_S)

    assert measure([], [Wait(last_s - 0.1, 3, 0.5)], 100.0) is None
    assert measure([], [Wait(99.0, 3, 0.5), Wait(99.5, 0, 0.0)], 100.0) is None


def test_what_waits_is_in_flight() -> None:
    """Each second's in-flight count is completed by the message that follows it."""
    told = [Wait(100.0 - age + 0.5, 6, 1.0) for age in range(1, 12)]
    found = measure(samples(10), told, 100.0)

    assert found is not None
    assert found.totals == {"qps": 20.0, "concurrency": 10.0}


def test_requests_let_go_between_two_messages_are_not_counted_twice() -> None:
    """The last message said 200; since then all of them went to the replica, whose seconds now show them."""
    told = [Wait(95.0, 200, 1.0), Wait(96.0, 200, 2.0)]
    seen = [Sample(95.5, 1.0, 0, 0, 1), *(Sample(at_s, 1.0, 0, 200, 1) for at_s in (96.5, 97.5, 98.5))]
    found = measure(seen, told, 98.6)

    assert found is not None
    assert found.totals["concurrency"] == 200.0


def test_a_second_is_left_out_until_what_waited_in_it_is_known() -> None:
    """Its message may still come; by then the second counts as it is."""
    seen = [Sample(97.0, 1.0, 0, 4, 1), Sample(98.0, 1.0, 0, 4, 1), Sample(99.0, 1.0, 0, 4, 1)]
    told = [Wait(97.5, 6, 1.0), Wait(98.5, 6, 2.0)]
    early, late = measure(seen, told, 99.1), measure(seen, told, 99.0 + NEXT_WAIT_S)

    assert early is not None
    assert "concurrency" not in early.totals  # 2 s are known of the 2.5 s needed
    assert late is not None
    assert late.totals["concurrency"] == (10 + 10 + 4) / 3


def test_when_somebody_asked_last() -> None:
    """Answered, in flight or waiting; and a second in which no replica was ready tells of nobody."""
    quiet = [Sample(95.0 + i, 1.0, 0, 0, 1) for i in range(5)]
    cases = {
        None: (quiet, []),
        96.5: ([*quiet, Sample(96.5, 1.0, 1, 0, 1)], []),
        97.5: ([*quiet, Sample(97.5, 1.0, 0, 1, 1)], []),
        98.5: ([*quiet, Sample(98.5, 1.0, 0, 0, 0)], []),
        99.5: (quiet, [Wait(99.5, 1, 0.0), Wait(99.6, 0, 0.0)]),
    }

    for busy_s, (seen, told) in cases.items():
        found = measure(seen, told, 99.9)
        assert found is not None
        assert found.busy_s == busy_s


def test_windows_forget_who_waited() -> None:
    """Names that nobody waits for any more are dropped."""
    windows = Windows()
    windows.add_waiting(hold(2), 100.0)
    assert windows.awaited(101.0) == ["ocr"]
    assert windows.awaited(103.0) == []

    windows.forget_silent(121.0)
    windows.add(second(0.0, ready=0), 121.0)
    found = windows.load("ocr", 121.0)

    assert found is not None
    assert found.waiting is None


def test_a_window_of_nothing_holds_the_newest_alone() -> None:
    """What was asked for until this moment is no reason to wait for another look."""
    track = remember(remember(Track(), 2, 100.0, 300.0), 5, 101.0, 300.0)

    assert [span.wants for span in track.within(0.0, 101.0)] == [5]
    assert [span.wants for span in track.within(1.0, 101.0)] == [2, 5]
