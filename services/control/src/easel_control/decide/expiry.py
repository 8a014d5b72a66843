"""Services that have not been Running for 180 days are deleted (EAS's rule), warned of at 150 and at 173 days.

Counted from when the last request could have been answered. What somebody changed within the last day is not deleted:
who starts or unlocks an old service means to use it. A locked one is never deleted, only warned of.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from easel_control.model import ServiceRow

EXPIRES_D = 180
WARNINGS_D = (150, 173)
SPARED_AFTER_CHANGE = timedelta(days=1)


class Due(Struct, frozen=True, kw_only=True):
    """What is to be done about an unused service now."""

    kind: Literal["warn", "delete"]
    days: int
    """Which of the thresholds was passed."""
    reason: str
    message: str


def due(row: ServiceRow, now: datetime) -> Due | None:
    """The newest threshold that was passed and not acted on; None: nothing is to be done."""
    if row.not_running_since is None or row.wanted == "deleted":
        return None
    days = (now - row.not_running_since).days
    if days >= EXPIRES_D and row.lock == "none":
        changed = row.changed_at
        if changed is not None and now - changed < SPARED_AFTER_CHANGE:
            return None
        return Due(kind="delete", days=EXPIRES_D, reason="Expired", message=f"{_since(row)}, {days} days ago")
    passed = [d for d in (*WARNINGS_D, EXPIRES_D) if days >= d]
    if not passed or row.expiry_warned >= passed[-1]:
        return None
    at = row.not_running_since + timedelta(days=EXPIRES_D)
    if row.lock != "none":
        then = f"its lock ({row.lock}) keeps it; without, it would be deleted on {at:%Y-%m-%d}"
        return Due(kind="warn", days=passed[-1], reason="ExpiryLocked", message=f"{_since(row)}; {then}")
    then = f"it will be deleted on {at:%Y-%m-%d} unless it is Running before"
    return Due(kind="warn", days=passed[-1], reason="ExpiryNear", message=f"{_since(row)}; {then}")


def expires_at(row: ServiceRow) -> datetime | None:
    """When the service will be deleted if nothing happens; None: it will not."""
    if row.not_running_since is None or row.lock != "none":
        return None
    return row.not_running_since + timedelta(days=EXPIRES_D)


def not_running_since(row: ServiceRow, *, answers: bool, now: datetime) -> datetime | None:
    """Since when no request would have been answered. `answers`: one would now."""
    return None if answers else row.not_running_since or now


def _since(row: ServiceRow) -> str:
    return f"{row.name} has not been Running since {row.not_running_since:%Y-%m-%d}"
