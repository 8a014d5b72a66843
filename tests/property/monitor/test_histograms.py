"""Quantiles lie where the requests were; merging does not care about order or grouping."""

from __future__ import annotations

from bisect import bisect_left
from functools import reduce
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_monitor.decide import cell, histogram, point
from easel_monitor.decide.cell import Cell
from easel_monitor.rings import Ring

latencies = st.lists(st.floats(0, 4e6), max_size=80)
quantiles = st.sampled_from([0.5, 0.9, 0.99, 0.999]) | st.floats(0.001, 1.0)


def counts_of(values: list[float]) -> tuple[int, ...]:
    counts = [0] * (len(histogram.BOUNDS_MS) + 1)
    for value in values:
        counts[bisect_left(histogram.BOUNDS_MS, value)] += 1
    return tuple(counts) if values else histogram.EMPTY


counts = latencies.map(counts_of)


@given(latencies.filter(bool), quantiles)
def test_a_quantile_lies_in_the_bucket_of_its_rank(values: list[float], q: float) -> None:
    """The exact quantile of the raw values and the told one are in the same bucket (its upper end counts as in it)."""
    told = histogram.quantile_ms(histogram.BOUNDS_MS, counts_of(values), q)
    exact = sorted(values)[max(0, ceil(round(q * len(values), 9)) - 1)]

    assert told is not None
    bucket = bisect_left(histogram.BOUNDS_MS, exact)
    lower = histogram.BOUNDS_MS[bucket - 1] if bucket else 0.0
    upper = histogram.BOUNDS_MS[min(bucket, len(histogram.BOUNDS_MS) - 1)]
    assert min(lower, upper) <= told <= upper


@given(counts, quantiles, quantiles)
def test_quantiles_rise(of: tuple[int, ...], a: float, b: float) -> None:
    """p99 is never below p50; without requests both are unknown."""
    low, high = (histogram.quantile_ms(histogram.BOUNDS_MS, of, q) for q in sorted((a, b)))

    assert (low is None) == (high is None) == (not any(of))
    if low is not None and high is not None:
        assert low <= high + 1e-9


@given(counts, counts, counts)
def test_merging_is_associative_and_commutative(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> None:
    """Seconds, replicas and Envoys may be added in any order; no request is lost or doubled."""
    merge = histogram.merge

    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, b) == merge(b, a)
    assert merge(a, histogram.EMPTY) == a
    assert sum(merge(a, b)) == sum(a) + sum(b)


@given(latencies, st.lists(st.floats(0.1, 5e6), min_size=1, max_size=30, unique=True).map(sorted), quantiles)
def test_foreign_buckets_never_flatter(values: list[float], bounds: list[float], q: float) -> None:
    """With other bounds than ours every request is kept, and a quantile only rises."""
    cumulative = [sum(v <= bound for v in values) for bound in bounds]
    foreign = histogram.from_cumulative(bounds, cumulative, len(values))

    assert sum(foreign) == len(values)
    told, ours = (histogram.quantile_ms(histogram.BOUNDS_MS, c, q) for c in (foreign, counts_of(values)))
    if told is not None and ours is not None:
        assert told >= ours - 1e-6


ints = st.integers(0, 1000)
amounts = st.integers(0, 1000).map(float)
cells = st.builds(
    Cell, start_s=st.integers(1_000_000, 1_000_300), interval_s=amounts,
    requests=st.tuples(ints, ints, ints, ints, ints),
    retries=ints, timeouts=ints, in_flight_s=amounts, ready_s=amounts, usage_s=amounts, cpu_core_s=amounts,
    memory_mib_s=amounts, span_s=amounts, total_s=amounts, latency=counts,
)  # fmt: skip


@given(cells, cells, cells)
def test_cells_merge_in_any_order(a: Cell, b: Cell, c: Cell) -> None:
    """A window's sum does not depend on how it was cut."""
    assert cell.merge(cell.merge(a, b), c) == cell.merge(a, cell.merge(b, c))
    assert cell.merge(a, b) == cell.merge(b, a)


@given(st.lists(cells, min_size=1, max_size=12))
def test_a_ring_keeps_what_was_put(put: list[Cell]) -> None:
    """Cells within the ring's reach come back added up by slot, none lost, none doubled."""
    ring = Ring(10, 60)
    for one in put:
        ring.put(one)

    found = ring.between(1_000_000, 1_000_310)

    total, expected = reduce(cell.merge, found), reduce(cell.merge, put)
    assert (total.requests, total.latency) == (expected.requests, expected.latency or histogram.EMPTY)
    assert (total.retries, total.timeouts) == (expected.retries, expected.timeouts)
    assert total.memory_mib_s == pytest.approx(expected.memory_mib_s, rel=1e-5)
    assert [c.start_s for c in found] == sorted({one.start_s - one.start_s % 10 for one in put})


@given(cells)
def test_a_point_is_unknown_exactly_where_nobody_told(of: Cell) -> None:
    """Rates need an Envoy's seconds, usage an agent's; zero is only said by somebody."""
    read = point.point(of)

    assert (read.qps is None) == (of.interval_s == 0)
    assert (read.cpu_cores is None) == (of.usage_s == 0)
    assert (read.latency_p50_ms is None) == (not any(of.latency))
    if read.qps is not None:
        assert sum(read.qps_by_code.values()) == pytest.approx(read.qps)
