"""When a process that ended is started again."""

from __future__ import annotations

from easel_standalone.decide import restart


def test_first_end_starts_again_at_once() -> None:
    """A killed Envoy is an outage: its first restart must not wait."""
    assert restart.delay_s(1) == 0


def test_delay_grows_to_its_limit() -> None:
    """Each further short life waits longer, never more than the limit."""
    delays = [restart.delay_s(n) for n in range(1, 40)]

    assert delays == sorted(delays)
    assert delays[2] > delays[1] > 0
    assert max(delays) == restart.LONGEST_S


def test_stable_life_resets_the_count() -> None:
    """A process that lived long enough counts as new."""
    assert restart.failures_after(7, restart.STABLE_S) == 1
    assert restart.failures_after(7, restart.STABLE_S - 0.1) == 8
