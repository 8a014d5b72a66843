"""How revisions move on: admitted → rolling out → live → superseded, or failed. By the table in states.REVISION."""

from __future__ import annotations

from collections.abc import Iterable

from easel_contracts.states import REVISION
from easel_control.decide.status import Status
from easel_control.model import RevisionRow, ServiceRow


def moves(
    row: ServiceRow, status: Status, revisions: Iterable[RevisionRow], *, started: bool
) -> list[tuple[RevisionRow, str]]:
    """(revision, its next state), one step each. `started`: a replica of the present revision exists."""
    found = [(r, _target(row, status, r, started=started)) for r in revisions]
    return [(r, _step(r.state, target)) for r, target in found if _step(r.state, target) != r.state]


def _target(row: ServiceRow, status: Status, revision: RevisionRow, *, started: bool) -> str:
    if revision.number != row.revision.number:
        live_now = status.status == "Running"
        return revision.state if revision.state == "live" and not live_now else "superseded"
    if status.status == "Running" and status.settled:
        return "live"
    if status.status == "Failed" and revision.state != "live":
        return "failed"
    return "rolling_out" if started and revision.state in ("admitted", "failed") else revision.state


def _step(before: str, target: str) -> str:
    """`target` where the table allows it, else the step on the way to it, else no step."""
    if target == before or target in REVISION[before]:
        return target
    return "rolling_out" if "rolling_out" in REVISION[before] and target == "live" else before
