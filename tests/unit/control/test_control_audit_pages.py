"""Two logs as one: every record once, each log in its own order, whatever the page size."""

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
    others=st.lists(st.integers(0, 9), max_size=12).map(sorted),
    size=st.integers(1, 5),
)
def test_pages_joined_are_both_logs_by_time(own: list[int], others: list[int], size: int) -> None:
    logs = log_of("control", own), log_of("monitor", others)
    found: list[AuditRecord] = []
    position = Position()
    while True:
        left, right = page(logs[0], position.control, size + 1), page(logs[1], position.monitor, size + 1)
        got, position = merged(left, right, size, position)
        found += got
        if len(left) + len(right) <= size:
            break
        position = Position.of(position.token())

    assert [r for r in found if r.owner == "control"] == logs[0]
    assert [r for r in found if r.owner == "monitor"] == logs[1]
    times = [r.at.ToDatetime() for r in found]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("token", ["x", "1", "1.", "1.2.3", "-1.2", "9" * 30 + ".1"])
def test_a_made_up_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        Position.of(token)
