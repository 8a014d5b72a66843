"""The state tables: every step they name works, every other raises and changes nothing."""

from __future__ import annotations

import pytest

from easel_contracts import states
from easel_contracts.states import IllegalTransition, Table

TABLES = {
    "replica": states.REPLICA,
    "node": states.NODE,
    "revision": states.REVISION,
    "route": states.ROUTE,
    "service": states.SERVICE,
}


@pytest.mark.parametrize(("kind", "table"), TABLES.items())
def test_tables_are_closed(kind: str, table: Table) -> None:
    """Every state that can be reached has a row of its own."""
    reached = {after for row in table.values() for after in row}

    assert reached <= set(table)


@pytest.mark.parametrize(("kind", "table"), TABLES.items())
def test_steps(kind: str, table: Table) -> None:
    """Walks every pair of states: the table's steps and staying are allowed, all else raises."""
    for before in table:
        for after in table:
            if after in table[before] or after == before:
                assert states.step(kind, table, before, after) == after
            else:
                with pytest.raises(IllegalTransition):
                    states.step(kind, table, before, after)


def test_unknown_states_raise() -> None:
    """A state that is not in the table is refused on either side."""
    with pytest.raises(IllegalTransition):
        states.step("replica", states.REPLICA, "ready", "perfect")
    with pytest.raises(IllegalTransition):
        states.step("replica", states.REPLICA, "perfect", "ready")


@pytest.mark.parametrize("state", ["stopped", "failed", "lost"])
def test_a_replica_that_ended_stays_so(state: str) -> None:
    """The final states of a replica have no way out."""
    assert states.is_final(states.REPLICA, state)
