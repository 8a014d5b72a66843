"""Evidence of canaries: thresholds, shares, verdicts and their sentences, on counts made by hand."""

from __future__ import annotations

import math

import msgspec
import pytest

from easel_contracts.metrics import bin_upper_ms, latency_bin
from easel_control.decide.betting import log_mean, log_rate_below
from easel_control.decide.evidence import (
    BUSY,
    GRIDS,
    Counts,
    Evidence,
    Limits,
    Second,
    begin,
    breach,
    freeze,
    is_frozen,
    not_worse,
    observe,
    quantile_ms,
    required_requests,
    share_of,
    shown,
)

LIMITS = Limits()


def answers(requests: int, errors: int = 0, ms: float = 10.0) -> Counts:
    good = requests - errors
    return Counts(requests, errors, {latency_bin(ms): good} if good else {})


def after(evidence: Evidence, seconds: int, stable: Counts, candidate: Counts, share: float) -> Evidence:
    for _ in range(seconds):
        evidence = observe(evidence, Second(evidence.through_unix_s + 1, stable, candidate), share)
    return evidence


def with_baseline() -> Evidence:
    """500 of stable's requests, of 1 to 100 ms, half of them in 10 ms."""
    bins = {latency_bin(1.0): 200, latency_bin(10.0): 250, latency_bin(100.0): 50}
    return observe(begin(), Second(1, Counts(500, 0, bins)), 0.0)


def test_thresholds_are_frozen_from_the_first_500_of_stable() -> None:
    early = observe(begin(), Second(1, answers(499)), 0.0)
    assert not is_frozen(early)
    evidence = with_baseline()
    assert is_frozen(evidence)
    assert evidence.thresholds["slower_than_p50"] == latency_bin(10.0)
    assert evidence.thresholds["slower_than_p95"] == latency_bin(100.0)
    assert after(evidence, 5, answers(500, ms=900.0), Counts(), 0.0).thresholds == evidence.thresholds


def test_thresholds_are_frozen_from_fewer_when_asked_but_not_from_less_than_20() -> None:
    assert not is_frozen(freeze(observe(begin(), Second(1, answers(19)), 0.0)))
    evidence = freeze(observe(begin(), Second(1, answers(20)), 0.0))
    assert is_frozen(evidence)
    assert freeze(evidence) is evidence


def test_the_baseline_alone_is_no_evidence() -> None:
    evidence = after(with_baseline(), 100, answers(100, errors=90), answers(3, errors=3), 0.0)
    assert evidence.bets == begin().bets
    assert evidence.candidate.errors == 300
    assert breach(evidence, LIMITS) is None


def test_errors_of_the_candidate_alone_are_a_breach() -> None:
    evidence = after(with_baseline(), 20, answers(90), answers(10, errors=1), 0.1)
    found = breach(evidence, LIMITS)
    assert found is not None
    assert found.kind == "errors"
    assert (found.stable_events, found.candidate_events) == (0, 20)
    assert found.log10_e > 2
    assert "errors: 20 of 200 (10 %) of the candidate, 0 of 1,800 (0 %) of stable" in found.sentence


def test_errors_of_both_are_the_noise_they_share() -> None:
    evidence = after(with_baseline(), 100, answers(90, errors=45), answers(10, errors=5), 0.1)
    assert breach(evidence, LIMITS) is None


def test_slower_answers_are_a_breach_that_names_the_threshold() -> None:
    mixed = Counts(90, 0, {latency_bin(1.0): 36, latency_bin(10.0): 45, latency_bin(100.0): 9})
    evidence = after(with_baseline(), 20, mixed, answers(10, ms=50.0), 0.1)
    found = breach(evidence, LIMITS)
    assert found is not None
    assert found.kind == "slower_than_p50"
    assert "slower than stable's p50 of 10" in found.sentence
    assert breach(evidence, Limits(metrics=("errors",))) is None


def test_a_sure_but_small_difference_is_no_breach() -> None:
    """1.3 times stable's errors, over so many requests that it is certain."""
    evidence = after(with_baseline(), 500, answers(9000, errors=900), answers(1000, errors=130), 0.1)
    assert log_mean(evidence.bets["errors"].log_e) > math.log(1e4)
    assert breach(evidence, Limits(metrics=("errors",))) is None


def test_a_busy_second_says_its_own_share() -> None:
    """Half of the traffic is the candidate's while one tenth was told: an Envoy took up the weight early."""
    evidence = after(with_baseline(), 100, answers(50, errors=5), answers(50, errors=5), 0.1)
    assert breach(evidence, LIMITS) is None


def test_a_quiet_second_is_judged_with_the_share_that_was_told() -> None:
    one = observe(with_baseline(), Second(2, Counts(), answers(1, errors=1)), 0.1)
    grown = [theta / (1 + 0.1 * (theta - 1)) for theta in GRIDS["errors"]]
    assert one.bets["errors"].log_e == pytest.approx([math.log(each) for each in grown])


def test_the_share_is_the_weight_or_the_running_one_where_it_is_biased() -> None:
    evidence = after(with_baseline(), 10, answers(5), answers(5), 0.1)
    assert share_of(evidence, 100, biased=False) == 0.1
    assert share_of(begin(), 0, biased=True) == 0.0
    seen = share_of(evidence, 100, biased=True)
    assert 0.1 < seen < 0.5
    assert share_of(evidence, 900, biased=True) == 0.9


def test_few_requests_are_said_to_be_not_enough() -> None:
    evidence = after(freeze(observe(begin(), Second(1, answers(20)), 0.0)), 60, answers(1), answers(1), 0.5)
    found = not_worse(evidence, LIMITS)
    assert not found.proven
    assert "not enough data to show that it is not worse (errors at" in found.sentence
    assert "errors 0 of 60 (0 %), limit 0.5 %" in found.sentence


def test_no_errors_and_equal_latency_are_shown_not_to_be_worse() -> None:
    mixed = Counts(50, 0, {latency_bin(1.0): 20, latency_bin(10.0): 26, latency_bin(110.0): 4})
    narrow = Counts(50, 0, {latency_bin(1.0): 20, latency_bin(10.0): 29, latency_bin(110.0): 1})
    evidence = after(with_baseline(), 60, mixed, narrow, 0.5)
    found = not_worse(evidence, LIMITS)
    assert found.proven
    assert found.sentence.startswith("not worse: errors 0 of 3,000")


def test_a_model_that_always_takes_as_long_is_shown_not_to_be_slower() -> None:
    evidence = after(begin(), 20, answers(100, ms=200.0), answers(100, ms=200.0), 0.5)
    assert not_worse(evidence, LIMITS).proven
    slow = after(begin(), 20, answers(100, ms=200.0), answers(100, ms=260.0), 0.5)
    assert not not_worse(slow, LIMITS).proven
    assert breach(slow, LIMITS) is not None


def test_an_error_rate_at_the_limit_is_not_shown_to_be_below() -> None:
    evidence = after(with_baseline(), 100, answers(500, errors=2), answers(500, errors=3), 0.5)
    assert not_worse(evidence, Limits(metrics=("errors",))).ratios["errors"] < 20


def test_another_limit_of_latency_than_begun_with_is_refused() -> None:
    with pytest.raises(ValueError, match="another latency_ratio"):
        not_worse(begin(), Limits(latency_ratio=2.0))
    assert not not_worse(begin(Limits(latency_ratio=2.0)), Limits(latency_ratio=2.0)).proven


def test_rows_show_each_kind_of_the_metrics() -> None:
    evidence = after(with_baseline(), 20, answers(90), answers(10, errors=1), 0.1)
    rows = {row.kind: row for row in shown(evidence, LIMITS)}
    assert list(rows) == ["errors", "slower_than_p50", "slower_than_p95", "slower_than_p99"]
    assert rows["errors"].limit_log10_e == pytest.approx(2.0)
    assert rows["errors"].threshold_ms == 0
    assert rows["slower_than_p50"].threshold_ms == bin_upper_ms(latency_bin(10.0))
    assert rows["errors"].rate_ratio == pytest.approx(20 / (0.5 * 200 / 1800))
    assert [row.kind for row in shown(evidence, Limits(metrics=("errors",)))] == ["errors"]


def test_a_step_needs_two_minutes_worth_of_requests_up_to_500() -> None:
    busy = after(begin(), 10, answers(100), Counts(), 0.0)
    assert required_requests(busy, 10) == 120
    assert required_requests(busy, 500) == 500
    assert required_requests(begin(), 10) == 1


def test_evidence_is_small_and_survives_being_written() -> None:
    evidence = after(with_baseline(), 20, answers(90), answers(10, errors=1), 0.1)
    raw = msgspec.msgpack.encode(evidence)
    assert msgspec.msgpack.decode(raw, type=Evidence) == evidence
    assert len(raw) < 4096


def test_quantiles_are_upper_bounds_of_bins() -> None:
    assert quantile_ms(Counts(), 0.5) == 0.0
    assert quantile_ms(answers(10, ms=37.0), 0.99) == pytest.approx(37.0, rel=0.02)


def test_huge_numbers_do_not_overflow() -> None:
    evidence = after(with_baseline(), 3, answers(10**6), answers(10**6, errors=10**6), 0.5)
    found = breach(evidence, LIMITS)
    assert found is not None
    assert math.isfinite(found.log10_e)
    assert math.isfinite(found.rate_ratio)
    assert log_mean([-math.inf, -math.inf]) == -math.inf
    assert math.isfinite(log_rate_below(10**6, 10**7, 0.005, (0.1,)))


def test_busy_is_where_shares_begin_to_tell() -> None:
    just = observe(with_baseline(), Second(2, answers(BUSY - 1), answers(1, errors=1)), 0.5)
    assert just.bets["errors"].log_e[0] == pytest.approx(math.log(1.5) - math.log1p(0.5 / BUSY))
