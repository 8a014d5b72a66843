"""What holds for every load and every policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from easel_autoscaler.decide.decision import STEP_S, Decision, Held, decide
from easel_autoscaler.decide.load import Load
from easel_autoscaler.decide.recommend import TOLERANCE, recommend
from easel_autoscaler.decide.track import Track
from easel_autoscaler.model import Entry, Fleet
from easel_autoscaler.windows import Windows
from easel_contracts.spec import Autoscaling
from tests.unit.autoscaler.made import current, policy, second, service

totals = st.floats(0, 5000, allow_nan=False)
counts = st.integers(1, 50)


@st.composite
def policies(draw: st.DrawFn) -> Autoscaling:
    low = draw(st.integers(1, 20))
    chosen = draw(st.sets(st.sampled_from(["qps", "concurrency"]), min_size=1))
    targets = {metric: draw(st.floats(0.1, 500)) for metric in sorted(chosen)}
    return policy(
        low, draw(st.integers(low, 40)), draw(st.sampled_from([0.0, 3.0, 10.0])),
        draw(st.sampled_from([0.0, 5.0, 20.0])), **targets,
    )  # fmt: skip


def measured(ready: int, total: float) -> Load:
    return Load(totals={"qps": total, "concurrency": total}, ready=ready)


@given(policies(), counts, counts, totals)
def test_recommendations_lie_within_limits(limits: Autoscaling, wanted: int, ready: int, total: float) -> None:
    """Whatever the load, min ≤ wants ≤ max."""
    found = recommend(limits, wanted, measured(ready, total))

    assert found is not None
    assert limits.min <= found.wants <= limits.max


@given(policies(), counts, counts, totals, totals)
def test_more_load_never_asks_for_less(limits: Autoscaling, wanted: int, ready: int, a: float, b: float) -> None:
    """Monotone in the load."""
    less, more = (recommend(limits, wanted, measured(ready, total)) for total in sorted((a, b)))

    assert less is not None
    assert more is not None
    assert less.wants <= more.wants


@given(counts, st.floats(0.1, 500), st.floats(-TOLERANCE, TOLERANCE))
def test_within_tolerance_nothing_is_asked(wanted: int, threshold: float, off: float) -> None:
    """Up to 10 % beside the threshold the count stays."""
    found = recommend(policy(1, 50, qps=threshold), wanted, measured(wanted, wanted * threshold * (1 + off)))

    assert found is not None
    assert found.wants == wanted


@given(policies(), st.integers(0, 60), st.integers(1, 60))
def test_without_data_only_limits_move_it(limits: Autoscaling, wanted: int, instance: int) -> None:
    """Held, unless the last decision lies outside the limits."""
    found = decide(service(limits, instance=instance), current(wanted), None, None, Track(), 1000.0)

    if limits.min <= wanted <= limits.max:
        assert isinstance(found, Held)
    else:
        assert isinstance(found, Decision)
        assert found.wanted == min(max(wanted, limits.min), limits.max)


@dataclass
class Run:
    """A simulated life: what was asked for and what was decided, second by second."""

    limits: Autoscaling
    asked: list[tuple[float, int]] = field(default_factory=list)
    moves: list[tuple[float, int, int]] = field(default_factory=list)

    def live(self, seconds: list[tuple[int, int, bool]]) -> None:
        windows = Windows()
        fleet = Fleet(windows)
        entry = fleet.see(service(self.limits), current(self.limits.min))
        for at, (in_flight, ready, heard) in enumerate(seconds):
            now = 1000.0 + at
            if heard:
                windows.add(second(now, requests=in_flight * 3, in_flight=in_flight, ready=ready), now)
            self._apply(fleet, entry, now)

    def _apply(self, fleet: Fleet, entry: Entry, now: float) -> None:
        outcome = fleet.observe(entry, now)
        if entry.asked:
            self.asked.append((now, entry.asked.wants))
        if isinstance(outcome, Decision):
            assert entry.current is not None
            self.moves.append((now, outcome.before, outcome.wanted))
            after = current(outcome.wanted, number=entry.current.number + 1)
            fleet.decided(entry, after, outcome, now)


lives = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 5), st.booleans() | st.just(True)), min_size=5, max_size=80
)


@settings(max_examples=150, deadline=None)
@given(policies(), lives)
def test_lives(limits: Autoscaling, seconds: list[tuple[int, int, bool]]) -> None:
    """Over any history: limits are kept, no move without data, replicas go only as the whole window allows."""
    run, again = Run(limits), Run(limits)
    run.live(seconds)
    again.live(seconds)

    assert run == again  # the same seconds, the same decisions
    known_at = dict(run.asked)
    decreases = [now for now, before, after in run.moves if after < before]
    assert all(later - earlier >= STEP_S for earlier, later in pairwise(decreases))
    for now, before, after in run.moves:
        assert limits.min <= after <= limits.max
        assert now in known_at
        if after < before:
            start = now - limits.scale_down_window_s
            within = [wants for at, wants in run.asked if start <= at <= now]
            assert after >= max(within)
            assert limits.scale_down_window_s == 0 or min(at for at, _ in run.asked) <= start
            assert before - after <= max(1, before // 2)
        else:
            within = [wants for at, wants in run.asked if now - limits.scale_up_window_s <= at <= now]
            assert after <= min(within)
