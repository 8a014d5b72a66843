"""From one-second metrics to a load; memory of recommendations."""

from __future__ import annotations

from easel_autoscaler.decide.load import Sample, measure
from easel_autoscaler.decide.track import Span, Track, after_change, remember
from easel_autoscaler.windows import Windows
from tests.unit.autoscaler.made import policy, second, service


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
