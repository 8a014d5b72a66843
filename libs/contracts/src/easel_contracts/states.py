"""The lives of things, as tables. An illegal step raises and changes nothing.

Rules: every transition is here and nowhere else; a state that has no way out is final; the pictures in the
docs are drawn from these tables (`tools/draw_states.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, frozenset[str]]


class IllegalTransition(Exception):
    """A step that the table does not allow."""

    def __init__(self, kind: str, before: str, after: str) -> None:
        super().__init__(f"a {kind} cannot go from {before!r} to {after!r}")
        self.kind, self.before, self.after = kind, before, after


def _table(**steps: str) -> Table:
    return {state: frozenset(after.split()) for state, after in steps.items()}


REPLICA: Table = _table(
    pending="placed stopped failed",
    placed="fetching starting ready draining stopped failed lost",
    fetching="starting ready draining stopped failed lost",
    starting="fetching ready draining stopped failed lost",
    ready="unready starting draining stopped failed lost",
    unready="ready starting draining stopped failed lost",
    draining="stopped failed lost",
    stopped="",
    failed="",
    lost="",
)
"""pending → placed → fetching → starting → ready ⇄ unready → draining → stopped; from any: failed or lost.
ready/unready → starting: the process ended and its agent starts it again."""

NODE: Table = _table(ready="not_ready lost", not_ready="ready lost", lost="ready")

REVISION: Table = _table(
    admitted="rolling_out superseded failed",
    rolling_out="live superseded reverted failed",
    live="superseded",
    superseded="rolling_out",
    reverted="rolling_out",
    failed="rolling_out",
)

ROUTE: Table = _table(
    built="sent refused",
    sent="acknowledged refused",
    acknowledged="probed refused built",
    probed="built removed",
    refused="built removed",
    removed="built",
)

SERVICE: Table = _table(
    Creating="Waiting Running Failed Stopping Deleting",
    Waiting="Running Failed Updating Scaling Stopping Deleting",
    Starting="Waiting Running Failed Stopping Deleting",
    Running="Waiting Scaling Updating Stopping Failed Deleting",
    Scaling="Running Waiting Updating Stopping Failed Deleting Scaling",
    Updating="Running Waiting Scaling Stopping Failed Deleting",
    Stopping="Stopped Starting Deleting Failed",
    Stopped="Starting Deleting Updating",
    Failed="Waiting Starting Running Updating Scaling Stopping Deleting",
    Deleting="Deleted DeleteFailed",
    DeleteFailed="Deleting",
    Deleted="",
)
"""EAS's names (ListServices filter). Creating: admitted · Waiting: replicas not ready yet · Updating: a new
revision is coming up."""


def step(kind: str, table: Table, before: str, after: str) -> str:
    """`after`, if the table allows it from `before`; the same state again is allowed."""
    if before not in table or after not in table:
        raise IllegalTransition(kind, before, after)
    if after != before and after not in table[before]:
        raise IllegalTransition(kind, before, after)
    return after


def is_final(table: Table, state: str) -> bool:
    """Whether nothing can follow."""
    return not table[state]
