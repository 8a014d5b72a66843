"""Whole structs stored as one value, written by version N−1 without losing what version N put into them.

While both run side by side, the older one reads a row (its decoder drops the fields it does not know), changes it and
writes it back. `Rows.kept` says what to store so that those fields stay:

- a field this type does not know is kept as it was stored;
- a field whose value was not changed is kept as it was stored, with all that lies in it unknown;
- a struct within the row that was changed is this version's own: what is unknown in it goes, because it was meant for
  the other content; a struct within that one, if it was left as it was, is again kept;
- maps and sequences are values: changed, they are replaced whole, so removing a label removes it.

The stored value is needed only where a row is changed, and a guarded UPDATE can return what it wrote over, so the usual
case costs no query:

    before = one(await connection.fetchrow(
        "UPDATE t SET data = $2, … FROM t AS before WHERE … AND before.id = t.id AND before.row_version = t.row_version"
        " RETURNING before.data", …))
    if (kept := ROWS.kept(before["data"], row)) is not None:
        await connection.execute("UPDATE t SET data = $2 WHERE id = $1", row.id, kept)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

S = TypeVar("S", bound=Struct)
V = TypeVar("V", bytes, str)


class Rows(Generic[S, V]):
    """How one type of row is stored; made by `packed` or `as_json`."""

    def __init__(
        self, kind: type[S], decode: Callable[[V], S], encode: Callable[[Any], V], plain: Callable[[V], Any]
    ) -> None:
        config = kind.__struct_config__
        if config.array_like or config.forbid_unknown_fields:
            raise TypeError(f"{kind.__name__} cannot be read by an older version: it is stored by place, or is strict")
        self.decode: Callable[[V], S] = decode
        """The row; fields that its type does not know are not in it. Raises msgspec.ValidationError."""
        self.encode: Callable[[Any], V] = encode
        """What to store for a new row."""
        self._plain: Callable[[V], Any] = plain

    def kept(self, before: V, row: S) -> V | None:
        """What to store for `row` over `before`; None where `before` has nothing unknown, so that `encode` is right."""
        old = self.decode(before)
        known = self.encode(old)
        if known == before:
            return None
        stored = self._plain(before)
        if not _beyond(stored, self._plain(known)):
            return None
        written = self._plain(self.encode(row))
        _keep(stored, old, row, written)
        names = _names(type(row))
        return self.encode({**{k: v for k, v in stored.items() if k not in names}, **written})


def packed(kind: type[S]) -> Rows[S, bytes]:
    """Rows stored as msgpack, for columns of type bytea."""
    return Rows(kind, msgspec.msgpack.Decoder(kind).decode, msgspec.msgpack.Encoder().encode, msgspec.msgpack.decode)


def as_json(kind: type[S]) -> Rows[S, str]:
    """Rows stored as JSON, for columns of type jsonb."""
    encoder = msgspec.json.Encoder()
    return Rows(kind, msgspec.json.Decoder(kind).decode, lambda value: encoder.encode(value).decode(),
                msgspec.json.decode)  # fmt: skip


def _keep(stored: dict[str, Any], old: Struct, new: Struct, written: dict[str, Any]) -> None:
    """Puts back into `written` what is stored of the fields that `new` has as `old` had them."""
    for field in msgspec.structs.fields(new):
        name = field.encode_name
        if name not in stored:
            continue
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            written[name] = stored[name]
        elif isinstance(after, Struct) and type(before) is type(after) and isinstance(stored[name], dict):
            _keep(stored[name], before, after, written[name])


def _names(kind: type[Struct]) -> set[str]:
    """The keys that a struct type knows, its tag included."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    tag = kind.__struct_config__.tag_field
    return names | {tag} if tag else names


def _beyond(stored: Any, known: Any) -> bool:
    """Whether something is stored, at any depth, that a reader and writer of the known does not bring back."""
    if isinstance(stored, dict) and isinstance(known, dict):
        return any(key not in known or _beyond(value, known[key]) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(known, list):
        return len(stored) != len(known) or any(map(_beyond, stored, known))
    return False
