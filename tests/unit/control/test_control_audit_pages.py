"""Several logs as one: every record once, each log in its own order, whatever the page size."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.errors import InvalidInput
from easel_control.audit import Position, merged
from easel_proto.v1.audit_pb2 import AuditRecord

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def log_of(owner: str, seconds: list[int]) -> list[AuditRecord]:
    """A log, newest first; ids from 1 with gaps."""
    made = []
    for number, second in enumerate(seconds, 1):
        record = AuditRecord(owner=owner, id=2 * number)
        record.at.FromDatetime(BEGIN + timedelta(seconds=second))
        made.append(record)
    return made[::-1]


def page(log: list[AuditRecord], before: int, size: int) -> list[AuditRecord]:
    """As the database answers."""
    return [r for r in log if before == 0 or r.id < before][:size]


@given(
    own=st.lists(st.integers(0, 9), max_size=12).map(sorted),
    monitors=st.lists(st.integers(0, 9), max_size=12).map(sorted),
    schedulers=st.lists(st.integers(0, 9), max_size=12).map(sorted),
    size=st.integers(1, 5),
)
def test_pages_joined_are_all_logs_by_time(
    own: list[int], monitors: list[int], schedulers: list[int], size: int
) -> None:
    given = {"control": own, "monitor": monitors, "scheduler": schedulers}
    logs = {owner: log_of(owner, seconds) for owner, seconds in given.items()}
    found: list[AuditRecord] = []
    position = Position()
    while True:
        pages = {owner: page(log, getattr(position, owner), size + 1) for owner, log in logs.items()}
        got, position = merged(pages, size, position)
        found += got
        if sum(map(len, pages.values())) <= size:
            break
        position = Position.of(position.token())

    for owner, log in logs.items():
        assert [r for r in found if r.owner == owner] == log
    times = [r.at.ToDatetime() for r in found]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("token", ["x", "1", "1.", "1.2.3.4", "1.2.", "-1.2", "9" * 30 + ".1"])
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        Position.of(token)


def test_a_token_of_two_logs_is_understood() -> None:
    """As a version wrote it that knew of no third."""
    assert Position.of("4.2") == Position(4, 2, 0)
