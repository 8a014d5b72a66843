"""A group over any sequence of changes: what it is stays sound, and every change counts on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.errors import InvalidInput
from easel_control.decide import groups
from easel_control.decide.explain_group import explain_group

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.sampled_from(("aaa", "bbb", "ccc", "ddd"))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("join"), NAMES),
        st.tuples(st.just("leave"), NAMES),
        st.tuples(st.just("release"), NAMES, st.sampled_from(("", *groups.STATES)), st.none() | st.integers(-1, 1000)),
        st.tuples(st.just("update"), st.sampled_from(("", *groups.MODES)), st.none() | st.integers(0, 9)),
    ),
    max_size=12,
)
REPLICAS = st.dictionaries(NAMES, st.integers(0, 5))


@given(CHANGES, REPLICAS)
def test_a_group_stays_sound(changes: list[tuple[object, ...]], replicas: dict[str, int]) -> None:
    row = groups.created("zzz", workspace="w", name="letters", uid="u", token_sealed=b"", past=(0, 0), now=NOW).row
    for kind, *what in changes:
        names = {m.service for m in row.members}
        change: groups.GroupChange | None = None
        match kind, *what:
            case "join", str(name) if name not in names:
                change = groups.joined(row, name, NOW)
            case "leave", str(name) if name in names:
                change = groups.left(row, name, NOW)
            case "release", str(name), str(state), (int() | None) as weight if name in names:
                if not state and weight is None:
                    with pytest.raises(InvalidInput):
                        groups.released(row, name, state, weight, NOW)
                    continue
                change = groups.released(row, name, state, weight, NOW)
            case "update", str(mode), (int() | None) as rate:
                change = groups.updated(row, mode, rate, None, NOW)
        if change is None:
            continue
        assert (change.row.row_version, change.row.generation) == (row.row_version + 1, row.generation + 1)
        assert change.row != row
        assert change.message
        row = change.row
        services = [m.service for m in row.members]
        assert services == sorted(set(services))
        assert "zzz" in services
    found = groups.standings(row, {}, replicas)
    assert [s.member for s in found] == list(row.members)
    assert sum(s.share for s in found) in (0, pytest.approx(1))
    assert all(w.message for w in explain_group(row, found))
