"""The tally of compared answers: what holds whatever the samples are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from easel_router.decide.compare import Compared, Difference
from easel_router.decide.rates import excess, log_evidence, wilson
from easel_router.decide.report import EXAMPLES, MOST_FIELDS, Sample, Tally, add, most_differing, verdict

paths = st.integers(0, 400).map(lambda n: f"body.f{n}")
compared = st.builds(
    lambda names, more: Compared(
        differences=tuple(Difference(path=p, kind="value", stable="a", candidate="b") for p in sorted(names)), more=more
    ),
    st.sets(paths, max_size=MOST_FIELDS),
    st.booleans(),
)
samples = st.builds(
    Sample, request=st.just("GET /"), at_unix_s=st.floats(0, 1e9), candidate=compared, itself=st.none() | compared,
    stable_ms=st.floats(0, 1e6), candidate_ms=st.floats(0, 1e6),
)  # fmt: skip


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    of, of_noise = draw(st.integers(0, 5000)), draw(st.integers(0, 5000))
    return draw(st.integers(0, of)), of, draw(st.integers(0, of_noise)), of_noise


@given(st.lists(samples, max_size=12))
def test_a_tally_is_bounded_and_its_counts_fit(given_samples: list[Sample]) -> None:
    tally = Tally()
    for sample in given_samples:
        tally = add(tally, sample)
    assert len(tally.fields) <= MOST_FIELDS + 1
    assert tally.itself <= tally.twice <= tally.samples == len(given_samples)
    for field in tally.fields.values():
        assert field.differ <= tally.differ
        assert field.itself <= tally.itself
        assert len(field.examples) <= EXAMPLES
    assert sum(tally.stable_ms.values()) == sum(tally.candidate_ms.values()) == tally.samples
    assert len(most_differing(tally)) == len(tally.fields)
    assert verdict(tally)[1]


@given(counts())
def test_bounds_hold_what_was_seen(seen: tuple[int, int, int, int]) -> None:
    hits, of, _, _ = seen
    low, high = wilson(hits, of)
    assert 0 <= low <= high <= 1
    found, below, above = excess(*seen)
    assert -1 <= below <= found <= above <= 1
    if of:
        assert low <= hits / of <= high


@given(counts())
def test_evidence_speaks_only_for_an_excess(seen: tuple[int, int, int, int]) -> None:
    hits, of, noise, of_noise = seen
    if log_evidence(*seen) > 0:
        assert hits * of_noise > noise * of
