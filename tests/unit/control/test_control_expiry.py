"""Half a year unused: what is warned of, what is deleted, and what is spared."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from easel_control.decide.expiry import due, expires_at, not_running_since
from easel_control.decide.explain import explain
from tests.unit.control.rows import NOW, row, world


def at(days: float) -> datetime:
    return NOW + timedelta(days=days)


def unused(**changes: Any) -> Any:
    return row(**{"status": "Stopped", "wanted": "stopped", "not_running_since": NOW, **changes})


@pytest.mark.parametrize(
    ("days", "changes", "kind", "threshold"),
    [
        (149.9, {}, None, 0),
        (150, {}, "warn", 150),
        (160, {"expiry_warned": 150}, None, 0),
        (173, {"expiry_warned": 150}, "warn", 173),
        (175, {}, "warn", 173),
        (179.9, {"expiry_warned": 173}, None, 0),
        (180, {"expiry_warned": 173}, "delete", 180),
        (400, {}, "delete", 180),
        (400, {"wanted": "deleted"}, None, 0),
        (400, {"not_running_since": None}, None, 0),
        (400, {"changed_at": at(399.5)}, None, 0),
        (400, {"changed_at": at(398.9)}, "delete", 180),
        (150, {"lock": "dangerous"}, "warn", 150),
        (180, {"lock": "dangerous", "expiry_warned": 173}, "warn", 180),
        (400, {"lock": "all", "expiry_warned": 180}, None, 0),
    ],
)
def test_what_is_due(days: float, changes: dict[str, Any], kind: str | None, threshold: int) -> None:
    got = due(unused(**changes), at(days))

    assert (got.kind if got else None) == kind
    if got is not None:
        assert got.days == threshold
        assert got.message.startswith("ocr has not been Running since 2026-01-01")


def test_the_warning_names_the_day_and_the_lock() -> None:
    open_, locked = due(unused(), at(150)), due(unused(lock="all"), at(150))

    assert open_ is not None
    assert locked is not None
    assert open_.message.endswith("it will be deleted on 2026-06-30 unless it is Running before")
    assert "its lock (all) keeps it; without, it would be deleted on 2026-06-30" in locked.message
    assert expires_at(unused()) == at(180)
    assert expires_at(unused(lock="dangerous")) is None


def test_since_when() -> None:
    assert not_running_since(row(), answers=True, now=NOW) is None
    assert not_running_since(row(), answers=False, now=at(1)) == at(1)
    assert not_running_since(unused(), answers=False, now=at(1)) == NOW
    assert not_running_since(unused(), answers=True, now=at(1)) is None


def test_explain_tells_of_lock_and_expiry() -> None:
    fresh = explain(unused(), world(now=at(0.5)))
    old = {line.code: line for line in explain(unused(expiry_warned=150), world(now=at(151)))}
    kept = {line.code: line for line in explain(unused(lock="dangerous"), world(now=at(151)))}

    assert "Expiry" not in {line.code for line in fresh}
    assert "deleted on 2026-06-30" in old["Expiry"].message
    assert old["Expiry"].hint == "`easel lock ocr dangerous` keeps it"
    assert kept["Locked"].message == "locked (dangerous): stop and delete are refused"
    assert "Expiry" not in kept
