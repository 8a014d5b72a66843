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
    if row.rollout is not None and revision.number == row.rollout.stable.number:
        return revision.state  # it serves on, also where the rollout is a restart of it
    if revision.number != row.revision.number:
        live_now = status.status == "Running" and row.rollout is None
        return revision.state if revision.state == "live" and not live_now else "superseded"
    if status.status == "Running" and status.settled and row.rollout is None:
        return "live"
    if status.status == "Failed" and revision.state != "live":
        return "failed"
    return "rolling_out" if started and revision.state != "live" else revision.state


def steps_to(before: str, target: str) -> list[str]:
    """The legal steps from one state to another, in order; empty where there is no way or nothing to go."""
    ways: list[list[str]] = [[before]]
    for way in ways:
        if way[-1] == target:
            return way[1:]
        ways += [[*way, after] for after in sorted(REVISION[way[-1]]) if after not in way]
    return []


def _step(before: str, target: str) -> str:
    """`target` where the table allows it, else the step on the way to it, else no step."""
    if target == before or target in REVISION[before]:
        return target
    return "rolling_out" if "rolling_out" in REVISION[before] and target in ("live", "failed") else before
