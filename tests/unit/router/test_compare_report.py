"""Samples → report: counts by field, the noise of stable against itself, the verdict."""

from __future__ import annotations

import random

import msgspec
import pytest

from easel_router.decide.compare import Compared, Difference
from easel_router.decide.rates import Z_95, excess, log_evidence, wilson
from easel_router.decide.report import EXAMPLES, MOST_FIELDS, OTHER, Sample, Tally, add, most_differing, p50_ms, skip
from easel_router.decide.report import verdict as judge


def differing(*paths: str, more: bool = False) -> Compared:
    found = tuple(Difference(path=path, kind="value", stable="1", candidate="2") for path in paths)
    return Compared(differences=found, more=more)


def sample(*paths: str, itself: tuple[str, ...] | None = None, at: float = 0.0, more: bool = False) -> Sample:
    return Sample(
        request="GET /", at_unix_s=at, candidate=differing(*paths, more=more),
        itself=None if itself is None else differing(*itself), stable_ms=10.0, candidate_ms=20.0,
    )  # fmt: skip


def tally_of(samples: list[Sample]) -> Tally:
    tally = Tally()
    for one in samples:
        tally = add(tally, one)
    return tally


def test_counts_of_samples_and_fields() -> None:
    tally = tally_of([sample("a", "b", itself=("b",)), sample("a"), sample(), sample(itself=())])
    assert (tally.samples, tally.differ, tally.twice, tally.itself) == (4, 2, 2, 1)
    assert {name: (f.differ, f.itself) for name, f in tally.fields.items()} == {"a": (2, 0), "b": (1, 1)}
    assert [name for name, _ in most_differing(tally)] == ["a", "b"]


def test_the_newest_examples_are_kept_and_none_of_stables_noise() -> None:
    tally = tally_of([sample("a", itself=("b",), at=float(n)) for n in range(9)])
    assert [e.at_unix_s for e in tally.fields["a"].examples] == [6.0, 7.0, 8.0]
    assert len(tally.fields["a"].examples) == EXAMPLES
    assert tally.fields["b"].examples == ()


def test_fields_beyond_the_bound_count_as_one() -> None:
    many = [f"f{n}" for n in range(MOST_FIELDS)]
    tally = tally_of([sample(*many), sample("x", "y", "f0", itself=("z",)), sample(more=True)])
    assert len(tally.fields) == MOST_FIELDS + 1
    assert (tally.fields[OTHER].differ, tally.fields[OTHER].itself, tally.fields[OTHER].examples) == (2, 1, ())
    assert tally.fields["f0"].differ == 2


def test_what_was_not_compared_is_counted_by_its_reason() -> None:
    tally = skip(skip(skip(Tally(), "TooLarge"), "TooLarge"), "TooMany")
    assert tally.not_compared == {"TooLarge": 2, "TooMany": 1}


def test_medians_are_those_of_the_answers() -> None:
    tally = tally_of([sample() for _ in range(5)])
    assert p50_ms(tally.stable_ms) == pytest.approx(10.0, rel=0.02)
    assert p50_ms(tally.candidate_ms) == pytest.approx(20.0, rel=0.02)
    assert p50_ms({}) == 0.0


def test_a_field_that_only_the_candidate_changes_is_a_difference() -> None:
    changed = [sample(*(("body.label",) if n % 10 == 0 else ()), itself=() if n % 5 == 0 else None) for n in range(400)]
    what, why = judge(tally_of(changed))
    assert (what, why) == (
        "differs",
        "body.label differs in 40 of 400 samples (10.0%), stable differs from itself in 0 of 80",
    )


def test_a_field_that_differs_from_itself_too_says_nothing_against_the_candidate() -> None:
    """Every answer has another timestamp: all samples differ, and so does stable from itself."""
    noisy = [sample("body.at", itself=("body.at",) if n % 5 == 0 else None) for n in range(1500)]
    what, why = judge(tally_of(noisy))
    assert what == "same", why
    # and it does not hide a field beside it
    both = [
        sample("body.at", *(("body.label",) if n % 10 == 0 else ()), itself=("body.at",) if n % 5 == 0 else None)
        for n in range(1500)
    ]
    what, why = judge(tally_of(both))
    assert what == "differs"
    assert why.startswith("body.label differs in 150 of 1500 samples (10.0%)")


def test_few_samples_say_nothing() -> None:
    assert judge(Tally())[0] == "not_enough_data"
    assert judge(tally_of([sample(itself=()) for _ in range(30)]))[0] == "not_enough_data"
    once = tally_of([sample("a") for _ in range(500)])
    assert judge(once) == ("not_enough_data", "500 samples compared, none of them with stable's own noise yet")


def test_equal_answers_are_the_same_once_there_are_enough() -> None:
    what, why = judge(tally_of([sample(itself=() if n % 5 == 0 else None) for n in range(300)]))
    assert (what, why) == (
        "same",
        "no field differs in 300 samples: at most 2.2% differ beyond stable's own noise (99 % sure)",
    )


def test_looking_all_the_time_finds_no_difference_in_noise() -> None:
    """A candidate that is stable itself, judged after every tenth sample: hardly ever called different."""
    alarms = 0
    for seed in range(200):
        dice, tally = random.Random(seed), Tally()
        share = dice.choice((0.02, 0.2, 0.7))
        for n in range(400):
            # stable's two answers and the candidate's are three draws from one distribution
            one, two, three = (dice.random() < share for _ in range(3))
            itself = (("a",) if one != two else ()) if dice.random() < 0.2 else None
            tally = add(tally, sample(*(("a",) if one != three else ()), itself=itself))
            if n % 10 == 9 and judge(tally)[0] == "differs":
                alarms += 1
                break
    assert alarms <= 4


def test_wilson_and_newcombe_as_published() -> None:
    # Newcombe 1998, table II, case (a): 56/70 and 48/80, method 10
    found, low, high = excess(56, 70, 48, 80, Z_95)
    assert (round(found, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)
    # case (h): 10/10 and 0/10
    assert [round(x, 4) for x in excess(10, 10, 0, 10)] == [1.0, 0.6075, 1.0]
    assert wilson(0, 0) == (0.0, 1.0)
    # Newcombe 1998 (single proportion): 15 of 148
    assert [round(x, 4) for x in wilson(15, 148)] == [0.0624, 0.1605]


def test_evidence_needs_both_sides_and_an_excess() -> None:
    assert log_evidence(50, 50, 0, 0) == 0.0
    assert log_evidence(0, 0, 5, 5) == 0.0
    assert log_evidence(50, 200, 10, 40) < 0
    assert log_evidence(50, 200, 0, 40) > log_evidence(25, 200, 0, 40) > 0


def test_a_tally_survives_being_stored() -> None:
    tally = skip(tally_of([sample("a", itself=("b",)), sample(more=True)]), "TooLarge")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(tally), type=Tally) == tally
