"""What an older version keeps of a row that a newer one wrote, and what it must not keep."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from easel_kit.rows import Rows, as_json, packed


class Limit(Struct, frozen=True, kw_only=True):
    """A struct in a struct."""

    cpu: int = 1


class Spec(Struct, frozen=True, kw_only=True):
    """A struct in the row."""

    number: int = 1
    limit: Limit = Limit()


class Row(Struct, frozen=True, kw_only=True, rename="camel"):
    """A row as N−1 knows it."""

    row_version: int = 1
    spec: Spec = Spec()
    labels: dict[str, str] = {}
    ends: tuple[Limit, ...] = ()


class Terse(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="terse"):
    """A row whose defaults are not stored."""

    row_version: int = 1
    paused: bool = False


NEWER: dict[str, Any] = {
    "rowVersion": 1,
    "spec": {"number": 1, "limit": {"cpu": 1, "gpu": 2}, "rollout": [1, None]},
    "labels": {"team": "a", "tier": "x"},
    "ends": [{"cpu": 1, "port": 80}],
    "later": {"deep": [1.5, "é"]},
}
"""The same row as N writes it."""

KINDS: list[Rows[Row, Any]] = [packed(Row), as_json(Row)]


def stored(rows: Rows[Row, Any], content: dict[str, Any]) -> Any:
    return rows.encode(content)


def kept(rows: Rows[Row, Any], row: Row) -> dict[str, Any]:
    """What is stored after `row` was written over NEWER."""
    found = rows.kept(stored(rows, NEWER), row)
    assert found is not None
    assert rows.decode(found) == row
    plain = msgspec.json.decode(found) if isinstance(found, str) else msgspec.msgpack.decode(found)
    assert isinstance(plain, dict)
    return plain


@pytest.mark.parametrize("rows", KINDS)
def test_all_that_is_unknown_stays_where_only_a_known_field_changed(rows: Rows[Row, Any]) -> None:
    """At the top, in a struct, in a struct of that, and in a sequence."""
    row = replace(rows.decode(stored(rows, NEWER)), row_version=2)

    assert kept(rows, row) == {**NEWER, "rowVersion": 2}


@pytest.mark.parametrize("rows", KINDS)
def test_a_changed_struct_is_its_own_and_an_unchanged_one_in_it_is_kept(rows: Rows[Row, Any]) -> None:
    """`rollout` was meant for revision 1; `gpu` belongs to limits that nobody changed."""
    row = rows.decode(stored(rows, NEWER))
    row = replace(row, spec=replace(row.spec, number=2))

    assert kept(rows, row) == {**NEWER, "spec": {"number": 2, "limit": {"cpu": 1, "gpu": 2}}}


@pytest.mark.parametrize("rows", KINDS)
def test_a_struct_changed_within_changes_the_one_around_it(rows: Rows[Row, Any]) -> None:
    """Both are this version's own then."""
    row = rows.decode(stored(rows, NEWER))
    row = replace(row, spec=replace(row.spec, limit=Limit(cpu=4)))

    assert kept(rows, row) == {**NEWER, "spec": {"number": 1, "limit": {"cpu": 4}}}


@pytest.mark.parametrize("rows", KINDS)
def test_maps_and_sequences_are_replaced_whole(rows: Rows[Row, Any]) -> None:
    """A label taken away is gone."""
    row = replace(rows.decode(stored(rows, NEWER)), labels={"team": "b"}, ends=(Limit(cpu=1), Limit(cpu=2)))

    assert kept(rows, row) == {**NEWER, "labels": {"team": "b"}, "ends": [{"cpu": 1}, {"cpu": 2}]}


@pytest.mark.parametrize("rows", KINDS)
def test_nothing_unknown_means_nothing_to_do(rows: Rows[Row, Any]) -> None:
    """Also over a row that an older version wrote with fewer fields."""
    assert rows.kept(rows.encode(Row(labels={"a": "b"})), Row(row_version=2)) is None
    assert rows.kept(stored(rows, {"rowVersion": 1, "spec": {}}), Row(row_version=2)) is None


def test_a_known_field_at_its_default_is_not_taken_for_unknown() -> None:
    """`paused` was stored, was switched off, and must not come back; the tag is no unknown field either."""
    rows = packed(Terse)
    before = msgspec.msgpack.encode({"type": "terse", "row_version": 3, "paused": True, "later": 1})

    found = rows.kept(before, Terse(row_version=4))

    assert found is not None
    assert msgspec.msgpack.decode(found) == {"type": "terse", "row_version": 4, "later": 1}
    assert rows.kept(rows.encode(Terse(row_version=3, paused=True)), Terse()) is None


def test_structs_without_names_are_refused() -> None:
    """What is stored by place, or refuses unknown fields, cannot be read by an older version at all."""

    class ByPlace(Struct, array_like=True):
        a: int

    class Strict(Struct, forbid_unknown_fields=True):
        a: int

    for kind in (ByPlace, Strict):
        with pytest.raises(TypeError, match="older version"):
            packed(kind)
