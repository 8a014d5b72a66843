"""Counts per canary, arm and second: when a second is over, what is kept while the database is away."""

from __future__ import annotations

from collections.abc import Iterable

from easel_kit.testing import ManualClock
from easel_monitor import arm_counts
from easel_monitor.arm_counts import ArmCounts
from easel_monitor.decide.outcomes import Outcome
from easel_monitor.model import ArmSecond
from easel_monitor.store import ArmSeconds

GOOD, BAD = Outcome(False, 7), Outcome(True)


class Table(ArmSeconds):
    """In memory."""

    def __init__(self) -> None:
        self.rows: list[ArmSecond] = []
        self.away = False
        self.pruned_before_s: list[int] = []

    async def save(self, seconds: Iterable[ArmSecond]) -> None:
        if self.away:
            raise OSError("away")
        self.rows.extend(seconds)

    async def newest(self) -> int:
        return max((row.unix_s for row in self.rows), default=0)

    async def prune(self, before_s: int) -> None:
        self.pruned_before_s.append(before_s)


def made() -> tuple[ManualClock, Table, ArmCounts]:
    clock, table = ManualClock(), Table()
    return clock, table, ArmCounts(clock, table)


def take(counts: ArmCounts, *outcomes: Outcome, arm: str = "stable", subject: str = "c1") -> None:
    counts.take((subject, arm, outcome) for outcome in outcomes)


def test_a_second_is_told_when_it_is_over() -> None:
    clock, _, counts = made()
    began = int(clock.now().timestamp())
    take(counts, GOOD, GOOD, BAD)
    take(counts, BAD, arm="candidate")
    take(counts, GOOD, subject="other")
    assert counts.recent("c1", began - 1) == []

    clock.move(1.2)

    assert counts.roll() == began
    assert counts.recent("c1", began - 1) == [
        ArmSecond(subject="c1", unix_s=began, arm="candidate", requests=1, errors=1, bins={}),
        ArmSecond(subject="c1", unix_s=began, arm="stable", requests=3, errors=1, bins={7: 2}),
    ]
    assert counts.recent("c1", began) == []


def test_memory_says_where_it_does_not_reach_back() -> None:
    clock, _, counts = made()
    began = int(clock.now().timestamp())
    assert counts.recent("c1", began - 2) is None
    for _ in range(arm_counts.IN_MEMORY_S + 10):
        take(counts, GOOD)
        clock.move(1.0)
    last = counts.roll()
    assert counts.recent("c1", began) is None
    kept = counts.recent("c1", last - 100)
    assert kept is not None
    assert [row.unix_s for row in kept] == list(range(last - 99, last + 1))


async def test_what_the_database_did_not_take_is_written_later() -> None:
    clock, table, counts = made()
    table.away = True
    for _ in range(3):
        take(counts, GOOD)
        clock.move(1.0)
        counts.roll()
        await counts.save()
    assert table.rows == []
    assert len(counts.unsaved("c1", 0)) == 3

    table.away = False
    await counts.save()
    await counts.save()

    assert [row.requests for row in table.rows] == [1, 1, 1]
    assert counts.unsaved("c1", 0) == []


async def test_the_running_second_is_written_at_the_end_and_not_told_again() -> None:
    clock, table, counts = made()
    take(counts, GOOD)
    await counts.save(ending=True)
    again = ArmCounts(clock, table)
    await again.load()
    take(again, BAD)
    clock.move(2.0)
    again.roll()
    await again.save()

    assert [(row.requests, row.errors) for row in table.rows] == [(1, 0), (1, 1)]
    assert len({row.unix_s for row in table.rows}) == 2


def test_a_clock_that_goes_back_changes_no_second_that_is_over() -> None:
    clock, _, counts = made()
    began = int(clock.now().timestamp())
    take(counts, GOOD)
    clock.move(1.0)
    take(counts, GOOD)
    clock.move(-1.0)
    take(counts, GOOD)
    clock.move(5.0)
    counts.roll()

    found = counts.recent("c1", began - 1)

    assert found is not None
    assert [(row.unix_s - began, row.requests) for row in found] == [(0, 1), (1, 2)]


async def test_old_seconds_are_forgotten_once_an_hour() -> None:
    clock, table, counts = made()
    for _ in range(3):
        await counts.save()
        clock.move(arm_counts.PRUNE_EVERY_S / 2)
    assert [before - table.pruned_before_s[0] for before in table.pruned_before_s] == [0, arm_counts.PRUNE_EVERY_S]
