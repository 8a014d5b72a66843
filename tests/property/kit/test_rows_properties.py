"""Rows that an older version reads, changes and writes back, over generated contents."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from easel_kit.rows import Rows, as_json, packed


class Inner(Struct, frozen=True, kw_only=True):
    """N−1's idea of a struct in the row."""

    a: int = 0
    b: str = ""


class Older(Struct, frozen=True, kw_only=True):
    """N−1's idea of the row."""

    number: int
    text: str | None = None
    inner: Inner = Inner()
    maybe: Inner | None = None
    labels: dict[str, str] = {}
    many: tuple[Inner, ...] = ()


class NewerInner(Inner, frozen=True, kw_only=True):
    """N's: a field more."""

    gained: tuple[int, ...] = ()


class Newer(Struct, frozen=True, kw_only=True):
    """N's: fields more, here and within."""

    number: int
    text: str | None = None
    inner: NewerInner = NewerInner()
    maybe: NewerInner | None = None
    labels: dict[str, str] = {}
    many: tuple[NewerInner, ...] = ()
    gained: float | None = None
    policy: NewerInner | None = None


ints = st.integers(-(2**53), 2**53)
texts = st.text(max_size=4)
maps = st.dictionaries(texts, texts, max_size=3)
inners = st.builds(Inner, a=st.integers(0, 2), b=texts)
newer_inners = st.builds(NewerInner, a=st.integers(0, 2), b=texts, gained=st.lists(ints, max_size=2).map(tuple))
olders = st.builds(
    Older, number=ints, text=st.none() | texts, inner=inners, maybe=st.none() | inners, labels=maps,
    many=st.lists(inners, max_size=2).map(tuple),
)  # fmt: skip
# JSON has no number that is not finite.
newers = st.builds(
    Newer, number=ints, text=st.none() | texts, inner=newer_inners, maybe=st.none() | newer_inners, labels=maps,
    many=st.lists(newer_inners, max_size=2).map(tuple),
    gained=st.none() | st.floats(allow_nan=False, allow_infinity=False), policy=st.none() | newer_inners,
)  # fmt: skip
changed_fields = st.sets(st.sampled_from([f.name for f in msgspec.structs.fields(Older)]))
forms = st.sampled_from([(packed(Older), packed(Newer)), (as_json(Older), as_json(Newer))])


def written(rows: Rows[Older, Any], before: Any, row: Older) -> Any:
    """What is stored after the older version wrote `row`."""
    kept = rows.kept(before, row)
    return rows.encode(row) if kept is None else kept


@given(forms, newers, olders, changed_fields)
@settings(deadline=None, max_examples=400)
def test_an_older_writer_loses_no_newer_field(
    forms: tuple[Rows[Older, Any], Rows[Newer, Any]], row: Newer, other: Older, changed: set[str]
) -> None:
    """What it read back is what it meant; every field it does not know, or left alone, is the newer one's still."""
    older, newer = forms
    before = newer.encode(row)
    read = older.decode(before)
    change = msgspec.structs.replace(read, **{name: getattr(other, name) for name in changed})

    after = written(older, before, change)

    assert older.decode(after) == change
    seen = newer.decode(after)
    assert (seen.gained, seen.policy) == (row.gained, row.policy)
    for name in ("number", "text", "inner", "maybe", "labels", "many"):
        if getattr(change, name) == getattr(read, name):
            assert getattr(seen, name) == getattr(row, name)
    for name in ("inner", "maybe"):
        after_inner = getattr(seen, name)
        if after_inner is not None and getattr(change, name) != getattr(read, name):
            assert after_inner.gained == ()


@given(forms, newers, olders)
@settings(deadline=None, max_examples=200)
def test_equal_rows_are_stored_as_equal_content(
    forms: tuple[Rows[Older, Any], Rows[Newer, Any]], row: Newer, other: Older
) -> None:
    """Written back as it was read, a row stays as it was; and two equal rows over one stored value are one."""
    older, newer = forms
    before = newer.encode(row)
    again = older.decode(before)
    twin = msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=Older)

    assert newer.decode(written(older, before, again)) == row
    assert written(older, before, twin) == written(older, before, other)
    assert older.kept(older.encode(other), again) is None
