"""What every mutation of a service's row has in common: the change itself, the lock, one generation on. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import Conflict, NotFound
from easel_contracts.states import SERVICE
from easel_control.model import ServiceRow

ENDINGS = frozenset(("Services.Stop", "Services.Delete"))
"""What a lock `dangerous` refuses."""


class Change(Struct, frozen=True, kw_only=True):
    """A row to write and what to tell of it."""

    row: ServiceRow
    verb: str
    reason: str
    message: str
    new_revision: bool = False
    given_up: int = 0
    """Number of a revision that was taken back before it was rolled out; 0: none."""
    warnings: tuple[str, ...] = ()
    """For who asked; not kept."""


def refuse_locked(row: ServiceRow, action: str) -> None:
    """Raises Conflict where the service's lock refuses the action (`Services.Stop`, …); Lock itself never is."""
    if row.lock == "none" or action == "Services.Lock" or (row.lock == "dangerous" and action not in ENDINGS):
        return
    what = "stop and delete are refused" if row.lock == "dangerous" else "every change is refused"
    raise Conflict(
        "LOCKED", f"{row.name} is locked ({row.lock}): {what}", f"`easel lock {row.name} none` takes the lock off"
    )


def refuse_deleting(row: ServiceRow) -> None:
    """Raises Conflict for a service on its way out."""
    if row.wanted == "deleted":
        raise Conflict("DELETING", f"{row.name} is being deleted", "wait until it is gone, then create it anew")


def unknown_service(name: str) -> NotFound:
    """The error for a service that is not there."""
    return NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")


def raised(row: ServiceRow, now: datetime) -> ServiceRow:
    """One generation on. Status is set in the same write, so it speaks of this generation already."""
    generation = row.generation + 1
    return replace(
        row, row_version=row.row_version + 1, generation=generation, observed_generation=generation, updated_at=now,
        changed_at=now,
    )  # fmt: skip


def moved(row: ServiceRow, status: str, reason: str, message: str) -> ServiceRow:
    """The row in another status, where the table of states allows the step; else as it is."""
    if status != row.status and status not in SERVICE[row.status]:
        return row
    if row.wanted == "stopped" and status not in ("Stopping", "Stopped"):
        return row
    return replace(row, status=status, reason=reason, message=message)
