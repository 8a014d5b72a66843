"""What holds for every load and every policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_autoscaler.decide.decision import STEP_S, Current, Decision, Held, decide
from easel_autoscaler.decide.load import WAITING_FRESH_S, Load, Waiting
from easel_autoscaler.decide.recommend import TOLERANCE, from_zero, recommend
from easel_autoscaler.decide.track import GAP_S, Span, Track, remember
from easel_autoscaler.model import Entry, Fleet
from easel_autoscaler.windows import Windows
from easel_contracts.facts import ServiceState
from easel_contracts.spec import Autoscaling
from tests.unit.autoscaler.made import current, hold, policy, second, service

NOW = 1000.0
totals = st.floats(0, 5000, allow_nan=False)
counts = st.integers(1, 50)


@st.composite
def policies(draw: st.DrawFn) -> Autoscaling:
    low = draw(st.integers(0, 20))
    chosen = draw(st.sets(st.sampled_from(["qps", "concurrency"]), min_size=1))
    targets = {metric: draw(st.floats(0.1, 500)) for metric in sorted(chosen)}
    limits = policy(
        low, draw(st.integers(max(low, 1), 40)), draw(st.sampled_from([0.0, 3.0, 10.0])),
        draw(st.sampled_from([0.0, 5.0, 20.0])), **targets,
    )  # fmt: skip
    return replace(limits, zero_grace_s=draw(st.sampled_from([0.0, 2.0, 7.0, 30.0])),
                   activation_replicas=draw(st.integers(1, 5)))  # fmt: skip


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
    found = decide(service(limits, instance=instance), current(wanted), None, None, Track(), NOW)

    if limits.min <= wanted <= limits.max:
        assert isinstance(found, Held)
    else:
        assert isinstance(found, Decision)
        assert found.wanted == min(max(wanted, limits.min), limits.max)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Any load, whoever waits, answers or is ready."""
    held, total = draw(st.integers(0, 500)), draw(totals)
    return Load(
        totals=draw(st.sampled_from([{}, {"qps": total}, {"qps": total, "concurrency": total}])),
        ready=draw(st.integers(0, 9)), waiting=Waiting(held, 0.02) if held else None, at_s=NOW,
        busy_s=draw(st.none() | st.floats(NOW - 10, NOW)),
    )  # fmt: skip


@st.composite
def tracks(draw: st.DrawFn) -> Track:
    """Any memory of the last minutes."""
    wants = st.tuples(st.integers(1, 40), st.floats(0.1, 40))
    spans: list[Span] = []
    at_s = NOW - draw(st.floats(0, 9))
    for count, lasted_s in draw(st.lists(wants, max_size=4)):
        spans.insert(0, Span(count, at_s - lasted_s, at_s))
        at_s -= lasted_s
    heard_s = draw(st.none() | st.floats(NOW - 9, NOW))
    quiet_s = draw(st.none() | st.floats(0, 60))
    return Track(
        spans=tuple(spans), heard_s=heard_s,
        quiet_since_s=None if heard_s is None or quiet_s is None else heard_s - quiet_s,
    )  # fmt: skip


def decided(state: ServiceState, known: Current | None, load: Load | None, track: Track) -> int | None:
    """The number of replicas wanted after a look; None: it was never decided."""
    limits = state.autoscaling
    assert limits is not None
    asked = recommend(limits, known.wanted, load) if known and load else None
    possible = tuple(replace(span, wants=min(max(span.wants, limits.min), limits.max)) for span in track.spans)
    track = replace(track, spans=possible)
    if asked:
        track = remember(track, asked.wants, NOW, max(limits.scale_up_window_s, limits.scale_down_window_s))
    found = decide(state, known, load, asked, track, NOW)
    if isinstance(found, Decision):
        return found.wanted
    return known.wanted if known else None


@given(policies(), st.integers(0, 50), loads(), tracks())
def test_who_waits_finds_a_replica_wanted(limits: Autoscaling, wanted: int, load: Load, track: Track) -> None:
    """From any state the next decision after a message about waiting requests wants at least one, within limits."""
    load = replace(load, waiting=load.waiting or Waiting(1, 0.0))
    fresh, set_again = service(limits, instance=wanted), service(limits, instance=wanted, generation=2,
                                                                 instance_generation=2)  # fmt: skip

    for state, known in ((fresh, current(wanted)), (fresh, None), (fresh, current(9, uid="u0")),
                         (set_again, current(wanted))):  # fmt: skip
        after = decided(state, known, load, track)
        assert after is not None
        assert max(limits.min, 1) <= after <= limits.max


@given(policies(), counts, st.none() | loads(), tracks())
def test_none_is_wanted_only_where_nobody_asked(
    limits: Autoscaling, wanted: int, load: Load | None, track: Track
) -> None:
    """Not below min; not while a request waits or is in flight; not when the load is or was unknown in the grace."""
    after = decided(service(limits), current(wanted), load, track)

    if after != 0:
        return
    assert limits.min == 0
    assert load is not None
    assert load.waiting is None
    assert track.heard_s is not None
    assert track.quiet_since_s is not None
    assert NOW - track.heard_s <= GAP_S
    assert load.busy_s is None or load.busy_s <= track.quiet_since_s
    assert track.heard_s - track.quiet_since_s >= limits.zero_grace_s


@given(policies(), st.integers(0, 500))
def test_a_message_told_again_changes_nothing(limits: Autoscaling, held: int) -> None:
    """Where as many as a start from zero makes are wanted, no second start is decided."""
    load = Load(totals={}, ready=0, waiting=Waiting(held, 0.02) if held else None, at_s=NOW, busy_s=NOW)
    found = decide(service(limits), current(from_zero(limits)), load, None, Track(), NOW)

    assert isinstance(found, Held)


@dataclass(frozen=True)
class Second:
    """What one second of a simulated life brings: metrics, or none; a message about who waits, or none."""

    in_flight: int
    ready: int
    heard: bool
    held: int

    @property
    def is_quiet(self) -> bool:
        """Known, and nobody asked."""
        return self.heard and not self.in_flight and self.ready > 0 and not self.held


@dataclass
class Run:
    """A simulated life: what was asked for and what was decided, second by second."""

    limits: Autoscaling
    asked: dict[float, int] = field(default_factory=dict)
    """By second, what was asked for at the last look in it."""
    moves: list[tuple[float, Decision]] = field(default_factory=list)

    def live(self, seconds: list[Second]) -> None:
        windows = Windows()
        fleet = Fleet(windows)
        entry = fleet.see(service(self.limits), current(self.limits.min))
        for at, seen in enumerate(seconds):
            now = NOW + at
            if seen.heard:
                load = second(now, requests=seen.in_flight * 3, in_flight=seen.in_flight, ready=seen.ready)
                windows.add(load, now)
            if seen.held:
                windows.add_waiting(hold(seen.held), now)
            self._apply(fleet, entry, now)
            assert entry.current is not None
            assert not seen.held or entry.current.wanted >= 1

    def _apply(self, fleet: Fleet, entry: Entry, now: float) -> None:
        outcomes = 0
        while isinstance(outcome := fleet.observe(entry, now), Decision):
            outcomes += 1
            assert outcomes <= 2  # a start, and more at once for a crowd; looking again finds nothing
            assert entry.current is not None
            if entry.asked:
                self.asked[now] = entry.asked.wants
            self.moves.append((now, outcome))
            after = current(outcome.wanted, number=entry.current.number + 1)
            fleet.decided(entry, after, outcome, now)
        if entry.asked:
            self.asked[now] = entry.asked.wants


@st.composite
def lives(draw: st.DrawFn) -> list[Second]:
    """Stretches of load and of quiet, with gaps and with requests that wait."""
    busy = st.builds(
        Second, st.integers(0, 200), st.integers(0, 5), st.booleans() | st.just(True),
        st.integers(0, 90) | st.just(0) | st.just(0),
    )  # fmt: skip
    idle = st.integers(1, 40).map(lambda length: [Second(0, 1, True, 0)] * length)
    parts = draw(st.lists(st.lists(busy, min_size=1, max_size=20) | idle, min_size=1, max_size=5))
    return [second for part in parts for second in part]


@settings(max_examples=200, deadline=None)
@given(policies(), lives())
def test_lives(limits: Autoscaling, seconds: list[Second]) -> None:
    """Over any history: limits are kept, no move without data, replicas go only as the windows and the grace allow."""
    run, again = Run(limits), Run(limits)
    run.live(seconds)
    again.live(seconds)

    assert run == again  # the same seconds, the same decisions
    decreases = [now for now, move in run.moves if move.reason == "ScaleIn"]
    assert all(later - earlier >= STEP_S for earlier, later in pairwise(decreases))
    for now, move in run.moves:
        assert limits.min <= move.wanted <= limits.max
        check = {"ScaleIn": _check_in, "ScaleOut": _check_out, "Activated": _check_start, "ScaledToZero": _check_zero}
        check[move.reason](run, now, move, seconds)


def _check_in(run: Run, now: float, move: Decision, seconds: list[Second]) -> None:
    start = now - run.limits.scale_down_window_s
    within = [wants for at, wants in run.asked.items() if start <= at <= now]
    assert now in run.asked
    assert move.wanted >= max(within) >= 1
    assert run.limits.scale_down_window_s == 0 or min(run.asked) <= start
    assert move.before - move.wanted <= max(1, move.before // 2)


def _check_out(run: Run, now: float, move: Decision, seconds: list[Second]) -> None:
    within = [wants for at, wants in run.asked.items() if now - run.limits.scale_up_window_s <= at <= now]
    assert now in run.asked
    assert move.wanted <= min(within)
    assert move.wanted > move.before > 0


def _check_start(run: Run, now: float, move: Decision, seconds: list[Second]) -> None:
    second = int(now - NOW)
    assert any(seen.held for seen in seconds[max(0, second - int(WAITING_FRESH_S)) : second + 1])
    assert move.wanted == from_zero(run.limits)


def _check_zero(run: Run, now: float, move: Decision, seconds: list[Second]) -> None:
    second = int(now - NOW)
    start = second - int(run.limits.zero_grace_s)
    grace = seconds[start + 1 : second + 1]
    assert run.limits.min == 0
    assert start >= 0
    assert all(seen.is_quiet or not seen.heard for seen in grace)
    assert not any(seen.held or (seen.heard and seen.in_flight) for seen in grace)
    silent = [len(list(group)) for heard, group in groupby(grace, key=lambda seen: seen.heard) if not heard]
    assert max(silent, default=0) < GAP_S
