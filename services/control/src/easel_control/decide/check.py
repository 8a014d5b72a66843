"""A nested document against the table of keys: types, ranges, unknown keys. All errors, each with its path.

What comes out holds only what the table knows, with defaults filled in at the leaves of objects that are present.
Rules that join several keys are not here but in `admit.py`.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from easel_contracts.errors import FieldError
from easel_control.decide.document import join, same, shown
from easel_control.decide.key import TEXTS, Key, Node
from easel_control.decide.keys import ALIASES, KEYS
from easel_control.decide.later import LATER_PREFIXES
from easel_control.decide.quantities import cores_of, mib_of

WORDS = {
    "string": "text in quotes", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "object": "an object { … }", "list": "a list [ … ]", "map": "an object { … }",
    "amount": 'a whole number, or a percentage such as "25%"', "cores": 'a number of cores, or text such as "500m"',
    "size": 'a number of MiB, or text such as "512Mi" or "1Gi"',
}  # fmt: skip


class Checker:
    """Collects errors over one document."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def object(self, node: Node, value: dict[str, Any], path: str) -> dict[str, Any]:
        """The sound part of an object."""
        out: dict[str, Any] = {}
        for name, found in value.items():
            child = node.children.get(name)
            here = join(path, name)
            if child is None:
                self._unknown(node, name, path)
            elif any(same(found, nothing) for nothing in child.key.neutral):
                continue
            elif child.key.later:
                self._later(child.key, here)
            else:
                checked = self._value(child, found, here)
                if checked is not None:
                    out[name] = checked
        for name, child in node.children.items():
            if child.key.required and name not in value:
                self.add(join(path, name), "MISSING", f"`{join(path, name)}` is missing; allowed: {allowed(child.key)}",
                         child.key.doc)  # fmt: skip
        return out

    def add(self, path: str, code: str, message: str, hint: str = "") -> None:
        """One more error."""
        self.errors.append(FieldError(path=shown(path), code=code, message=message, hint=hint))

    def _value(self, node: Node, value: Any, path: str) -> Any:
        """The value as the table wants it, or None after noting why not."""
        kind = node.key.kind
        if value is None:
            self.add(
                path, "WRONG_TYPE", f"null is not allowed; allowed: {allowed(node.key)}", "leave the key out instead"
            )
            return None
        if node.key.text_too and value in ("true", "false"):
            return value == "true"
        if not _is_kind(kind, value):
            self._wrong_type(node.key, value, path)
            return None
        if kind == "object":
            return self.object(node, value, path)
        if kind == "map":
            return self._map(node.key, value, path)
        if kind == "list":
            return self._list(node, value, path)
        if kind == "integer" or (kind == "amount" and not isinstance(value, str)):
            value = int(value)
        return value if self._in_bounds(node.key, value, path) else None

    def _list(self, node: Node, value: list[Any], path: str) -> list[Any] | None:
        """The items; one that is wrong leaves None in its place."""
        assert node.item is not None
        if not self._length(node.key, len(value), path, "entries"):
            return None
        return [self._value(node.item, item, f"{path}[{i}]") for i, item in enumerate(value)]

    def _map(self, key: Key, value: dict[str, Any], path: str) -> dict[str, str]:
        self._length(key, len(value), path, "entries")
        for name, text in value.items():
            if not isinstance(text, str):
                self.add(join(path, name), "WRONG_TYPE", f"{_named(text)} is not allowed; text in quotes is")
            elif not re.fullmatch(r"[^\x00-\x1f]{1,128}", name) or len(text) > 1024:
                self.add(join(path, name), "OUT_OF_RANGE", "names have 1 to 128 characters, values at most 1024")
        return value

    def _wrong_type(self, key: Key, value: Any, path: str) -> None:
        hint = ""
        if isinstance(value, str) and key.kind not in ("string", "object", "list", "map"):
            hint = f"write {value} without quotes" if _reads_as(key.kind, value) else ""
        self.add(path, "WRONG_TYPE", f"{_given(key, value)} is not allowed; allowed: {allowed(key)}", hint)

    def _in_bounds(self, key: Key, value: Any, path: str) -> bool:
        if key.choices and value not in key.choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in key.choices], 1)
            self.add(path, "OUT_OF_RANGE", f"{_named(value)} is not allowed; allowed: {allowed(key)}",
                     f"did you mean {near[0]}?" if near else "")  # fmt: skip
            return False
        if key.kind == "amount" and isinstance(value, str):
            return True
        if isinstance(value, str) and key.kind not in TEXTS:
            return self._text_in_bounds(key, value, path)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            number = _number(key.kind, value)
            low = (key.minimum is not None and number < key.minimum) or (key.above is not None and number <= key.above)
            if low or (key.maximum is not None and number > key.maximum):
                self.add(path, "OUT_OF_RANGE", f"{_named(value)} is not allowed; allowed: {allowed(key)}")
                return False
        return True

    def _text_in_bounds(self, key: Key, value: str, path: str) -> bool:
        if not self._length(key, len(value), path, "characters"):
            return False
        if key.pattern and not re.fullmatch(key.pattern, value):
            self.add(path, "WRONG_VALUE", f"{_given(key, value)} is not allowed; allowed: {allowed(key)}")
            return False
        return True

    def _length(self, key: Key, length: int, path: str, unit: str) -> bool:
        if key.min_length <= length <= key.max_length:
            return True
        self.add(path, "OUT_OF_RANGE",
                 f"{length} {unit}; {key.min_length} to {key.max_length} are allowed")  # fmt: skip
        return False

    def _later(self, key: Key, path: str) -> None:
        neutral = ", ".join(f"`{_json(n)}`" for n in key.neutral)
        self.add(path, "NOT_SUPPORTED_YET", f"`{path}` is not supported yet ({key.later})",
                 f"leave it out{f' (or {neutral})' if neutral else ''}")  # fmt: skip

    def _unknown(self, node: Node, name: str, path: str) -> None:
        here = join(path, name)
        for prefix, feature in LATER_PREFIXES.items():
            if here.startswith(prefix):
                self.add(here, "NOT_SUPPORTED_YET", f"`{shown(here)}` is not supported yet ({feature})", "leave it out")
                return
        near = nearest(node, name, path)
        known = sorted(n for n, child in node.children.items() if not child.key.later)
        hint = f"did you mean `{near}`?" if near else f"known here: {', '.join(known)}" if known else ""
        self.add(here, "UNKNOWN_KEY", f"`{shown(here)}` is not a key of service.json", hint)


def nearest(node: Node, name: str, path: str) -> str:
    """The known key that `name` was most likely meant to be; empty: none is near."""
    name = name[:100]
    siblings = {n.lower(): n for n in node.children}
    if found := difflib.get_close_matches(name.lower(), siblings, 1, 0.6):
        return join(path, siblings[found[0]])
    by_name: dict[str, str] = {}
    for key in KEYS:
        if not key.path.endswith("[]"):
            by_name.setdefault(key.name.lower(), key.path)
            by_name.setdefault(key.path.lower(), key.path)
    by_name |= ALIASES
    found = difflib.get_close_matches(name.lower(), by_name, 1, 0.75)
    found = found or difflib.get_close_matches(join(path, name).lower()[:200], by_name, 1, 0.75)
    return by_name[found[0]].replace("[]", "[0]") if found else ""


def _is_kind(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in TEXTS and isinstance(value, str):
        return re.fullmatch(TEXTS[kind], value) is not None
    if kind in ("integer", "amount"):
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    if kind in ("number", "cores", "size"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "list": list}.get(kind, dict))


def _reads_as(kind: str, text: str) -> bool:
    if kind == "boolean":
        return text in ("true", "false")
    return (
        re.fullmatch(r"-?\d{1,18}" if kind in ("integer", "amount") else r"-?\d{1,18}(\.\d{1,18})?", text) is not None
    )


def _number(kind: str, value: float | str) -> float:
    """The number whose bounds count."""
    if kind == "cores":
        return cores_of(value)
    return mib_of(value) if kind == "size" else float(value)


def _given(key: Key, value: Any) -> str:
    """The value in an error about its key; secrets are not repeated."""
    if not key.secret:
        return _named(value)
    return "this text" if isinstance(value, str) else "a value that is not text"


def _named(value: Any) -> str:
    """A value in an error message, short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = _json(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _json(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{shown(value)}"' if isinstance(value, str) else str(value)


def allowed(key: Key) -> str:
    """What may stand there, in words, without a verb."""
    words = WORDS[key.kind]
    if key.choices:
        words = "one of " + ", ".join(str(c) or '""' for c in key.choices)
    elif key.pattern_says:
        words = key.pattern_says
    bounds = []
    if key.above is not None:
        bounds.append(f"more than {key.above:g}")
    if key.minimum is not None:
        bounds.append(f"at least {key.minimum:.15g}")
    if key.maximum is not None:
        bounds.append(f"at most {key.maximum:.15g}")
    return f"{words}, {' and '.join(bounds)}" if bounds else words
