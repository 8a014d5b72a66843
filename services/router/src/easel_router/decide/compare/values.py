"""Two JSON values → the paths at which they differ."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from msgspec import Struct

from easel_contracts.spec import Comparison
from easel_router.decide.compare.texts import similar

Kind = Literal["value", "type", "missing", "extra", "length", "text", "bytes"]

DEEPEST = 64
"""Levels of nesting; a body with more is compared as text."""
LONGEST_KEY = 80
"""Characters of a key that a path keeps."""
_PLAIN = re.compile(r"[^\s.\[\]\"]+")
_STEP = re.compile(r'\[\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]|\.?[^\s.\[\]"]+')
ABSENT = object()


class At(Struct, frozen=True, kw_only=True):
    """One place at which two values differ."""

    path: str
    """From the value's root, e.g. `boxes[].text`; empty: the root."""
    kind: Kind
    one: Any
    other: Any


def parse(body: bytes) -> Any:
    """The value of a JSON body; ABSENT where it is none, or nested too deep. Python's own parser: it takes the NaN that
    Python's servers write, and keeps integers of any size."""
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        return ABSENT
    return value if _depth_within(value, DEEPEST) else ABSENT


def differences(one: Any, other: Any, how: Comparison) -> Iterator[At]:
    """Every place that differs, paths in `how.ignore` and what is below them left out. Lazy: whoever has enough may
    stop. Items of lists are compared in order."""
    ignored = _ignored(how.ignore)
    todo = [("", one, other)]
    while todo:
        path, a, b = todo.pop()
        if path in ignored:
            continue
        if a is ABSENT or b is ABSENT:
            yield At(path=path, kind="extra" if a is ABSENT else "missing", one=a, other=b)
        elif isinstance(a, dict) and isinstance(b, dict):
            names = sorted(a.keys() | b.keys(), reverse=True)
            todo += [(_member(path, name), a.get(name, ABSENT), b.get(name, ABSENT)) for name in names]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                yield At(path=path, kind="length", one=len(a), other=len(b))
            items = list(zip(a, b, strict=False))
            todo += [(f"{path}[]", x, y) for x, y in reversed(items)]
        elif (kind := _leaf(a, b, how)) is not None:
            yield At(path=path, kind=kind, one=a, other=b)


def _member(path: str, name: str) -> str:
    """`a.b`; a name that would be read otherwise stands as `a["b.c"]`."""
    if len(name) > LONGEST_KEY:
        name = name[: LONGEST_KEY - 1] + "…"
    if _PLAIN.fullmatch(name):
        return f"{path}.{name}" if path else name
    return f"{path}[{json.dumps(name, ensure_ascii=False)}]"


def canonical(path: str) -> str:
    """A path as `differences` writes it: `["a"]["b.c"]` is `a["b.c"]`."""
    made = ""
    for step in _STEP.finditer(path):
        if step[0] == "[]":
            made += "[]"
        else:
            made = _member(made, step[0].lstrip(".") if step["quoted"] is None else json.loads(step["quoted"]))
    return made


@lru_cache(maxsize=1024)
def _ignored(paths: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(canonical, paths))


def _leaf(a: Any, b: Any, how: Comparison) -> Kind | None:
    if _kind_of(a) != _kind_of(b):
        return "type"
    if isinstance(a, str):
        return None if similar(a, b, how.text_similarity) else "value"
    if isinstance(a, (int, float)) and not isinstance(a, bool):
        return None if close(a, b, how.tolerance) else "value"
    return None if a == b else "value"


def close(a: float, b: float, tolerance: float) -> bool:
    """Whether two numbers differ by at most `tolerance` of the larger one; NaN is equal to NaN."""
    if a == b or (a != a and b != b):
        return True
    if tolerance <= 0 or not (_finite(a) and _finite(b)):
        return False
    try:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=0.0)
    except OverflowError:  # an integer beyond what a float holds
        return abs(Fraction(a) - Fraction(b)) <= Fraction(tolerance) * max(abs(Fraction(a)), abs(Fraction(b)))


def _finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def _kind_of(value: Any) -> str:
    """1 and 1.0 are of one kind, true is of another."""
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def _depth_within(value: Any, deepest: int) -> bool:
    level: Collection[Any] = [value]
    for _ in range(deepest + 1):
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inside(outer)]
        if not level:
            return True
    return False


def _inside(outer: dict[str, Any] | list[Any]) -> Collection[Any]:
    return outer.values() if isinstance(outer, dict) else outer
