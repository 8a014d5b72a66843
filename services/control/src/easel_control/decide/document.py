"""The text of a service.json → one nested object, whatever the spelling; with the line and column of each path.

`{"metadata.rpc.keepalive": 1}`, `{"metadata": {"rpc.keepalive": 1}}` and the nested form become the same. Two
spellings of one key with different values are an error, and so is a key written twice in one object. Nothing here
knows what a key means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from easel_contracts.errors import FieldError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_UNFIT = re.compile("[\x00\ud800-\udfff]")
"""NUL and lone surrogates: no database, environment or UTF-8 stream can hold them."""


class Document(Struct, frozen=True, kw_only=True):
    """A parsed file."""

    value: dict[str, Any]
    """Nested; empty when the file could not be read at all."""
    errors: tuple[FieldError, ...] = ()
    places: Mapping[str, tuple[int, int]] = {}
    """Path → (line, column), both from 1."""


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written, repeated keys included."""


def parse(text: str, is_map: Callable[[str], bool], aliases: Mapping[str, str]) -> Document:
    """Never raises; what is wrong is in `errors`. `is_map(path)` says whose keys are names of the user's own."""
    if broken := _unreadable(text):
        return Document(value={}, errors=(broken,))
    try:
        parsed = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return Document(value={}, errors=(_syntax(f"the JSON is broken: {error.msg}", error.lineno, error.colno),))
    except ValueError as error:
        return Document(value={}, errors=(_syntax(f"the JSON has a number that cannot be used: {error}"),))
    if not isinstance(parsed, _Pairs):
        return Document(value={}, errors=(_syntax("a service.json is one JSON object, { … }"),))
    spread = _Spread(is_map, aliases)
    value: dict[str, Any] = {}
    spread.object(value, "", parsed)
    return Document(value=value, errors=tuple(spread.errors), places=places(text))


def _unreadable(text: str) -> FieldError | None:
    if len(text) > MAX_BYTES:
        return _syntax(f"the file has {len(text)} characters; at most {MAX_BYTES} are allowed")
    depth = deepest = 0
    for match in _NESTING.finditer(text):
        token = match.group()
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token, 0)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        return _syntax(f"the JSON is nested {deepest} deep; at most {MAX_DEPTH} is allowed")
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _syntax(message: str, line: int | None = None, column: int | None = None) -> FieldError:
    where = f" (line {line}, column {column})" if line else ""
    return FieldError(path="", code="SYNTAX", message=message + where, line=line, column=column)


class _Spread:
    """Writes pairs into nested objects."""

    def __init__(self, is_map: Callable[[str], bool], aliases: Mapping[str, str]) -> None:
        self._is_map, self._aliases = is_map, aliases
        self.errors: list[FieldError] = []

    def object(self, into: dict[str, Any], path: str, pairs: _Pairs) -> None:
        """`pairs` into `into`, which stands at `path`."""
        seen: set[str] = set()
        for key, value in pairs:
            if key in seen:
                self._error(join(path, key), "DUPLICATE_KEY", f"`{shown(key)}` is written twice in the same object",
                            "keep one of them")  # fmt: skip
                continue
            seen.add(key)
            if _UNFIT.search(key):
                self._error(
                    join(path, key), "WRONG_VALUE", f"the key {shown(key)!r} holds a character that cannot be stored"
                )
                continue
            target = self._aliases.get(join(path, key), key) if not path else key
            self._put(into, path, target, value)

    def _put(self, into: dict[str, Any], path: str, key: str, value: Any) -> None:
        """`value` at `key`, which may be dotted, below `path`."""
        while "." in key and not self._is_map(path):
            part, _, key = key.partition(".")
            path = join(path, part)
            below = into.setdefault(part, {})
            if path.count(".") > MAX_DEPTH:
                self._error(path, "UNKNOWN_KEY", f"`{shown(path)}…` is not a key of service.json")
                return
            if not isinstance(below, dict):
                self._error(path, "CONFLICT", f"`{shown(path)}` is written as a value and as an object in one file")
                return
            into = below
        here = join(path, key)
        if isinstance(value, _Pairs):
            below = into.setdefault(key, {})
            if isinstance(below, dict):
                self.object(below, here, value)
                return
        fresh = self._plain(value, here)
        if key not in into:
            into[key] = fresh
        elif not same(into[key], fresh):
            self._error(here, "CONFLICT", f"`{shown(here)}` is given in two spellings with different values",
                        "keep one of them")  # fmt: skip

    def _plain(self, value: Any, path: str) -> Any:
        if isinstance(value, _Pairs):
            made: dict[str, Any] = {}
            self.object(made, path, value)
            return made
        if isinstance(value, list):
            return [self._plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, str) and _UNFIT.search(value):
            self._error(path, "WRONG_VALUE", "the text holds a NUL or half of a character; neither can be stored")
            return ""
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            self._error(path, "OUT_OF_RANGE", "the number is too large")
            return 0
        return value

    def _error(self, path: str, code: str, message: str, hint: str = "") -> None:
        self.errors.append(FieldError(path=shown(path), code=code, message=message, hint=hint))


def join(path: str, key: str) -> str:
    """`key` below `path`."""
    key = key or '""'
    return f"{path}.{key}" if path else key


def shown(text: str) -> str:
    """A key or path from outside, fit to print and of bounded length."""
    clean = _UNFIT.sub("\ufffd", text)
    return clean if len(clean) <= 200 else clean[:199] + "…"


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: unlike Python's, true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([{}\[\],:])|([^\s{}\[\],:"]+))', re.DOTALL)


def places(text: str) -> dict[str, tuple[int, int]]:
    """Path → (line, column) of every key and list item of a text that is sound JSON."""
    starts = [0, *(m.end() for m in re.finditer("\n", text))]
    found: dict[str, tuple[int, int]] = {}
    stack: list[_Level] = []
    line = 0
    for match in _TOKEN.finditer(text):
        string, mark, _ = match.groups()
        at = match.end() - len(match.group().lstrip())
        while line + 1 < len(starts) and starts[line + 1] <= at:
            line += 1
        here = (line + 1, at - starts[line] + 1)
        top = stack[-1] if stack else None
        if top and top.expects_key and string:
            top.path = join(top.base, json.loads(string))
            top.expects_key = False
            found.setdefault(top.path, here)
        elif mark and mark in "{[":
            base = top.note(found, here) if top else ""
            stack.append(_Level(base=base, is_list=mark == "[", expects_key=mark == "{"))
        elif mark and mark in "}]":
            stack.pop()
        elif mark == "," and top:
            top.next()
        elif mark is None and top:
            top.note(found, here)
    return found


class _Level(Struct, kw_only=True):
    """An open object or list."""

    base: str
    is_list: bool
    expects_key: bool
    path: str = ""
    index: int = 0

    def note(self, found: dict[str, tuple[int, int]], here: tuple[int, int]) -> str:
        """Path of the value that starts here."""
        if not self.is_list:
            return self.path
        path = f"{self.base}[{self.index}]"
        found.setdefault(path, here)
        return path

    def next(self) -> None:
        """After a comma."""
        self.index += 1
        self.expects_key = not self.is_list
