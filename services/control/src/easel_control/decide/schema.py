"""The table of keys as a JSON Schema (draft 2020-12), for editors: `Services.GetSchema`.

Flat, dotted and nested spellings all pass; keys that are not built yet are marked; rules that join keys are left to
admission, which has the last word.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from easel_control.decide.key import TEXTS, Key, Node
from easel_control.decide.keys import ALIASES, TREE

TYPES = {"list": "array", "map": "object"}


def schema() -> dict[str, Any]:
    """The schema as an object."""
    out = _object(TREE)
    for spelling, path in ALIASES.items():
        out["properties"][spelling] = out["properties"][path]
    named = [{"required": [spelling]} for spelling in ("name", "metadata.name")]
    nested = {"required": ["metadata"], "properties": {"metadata": {"required": ["name"]}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Easel service.json",
        **out,
        "required": ["containers"],
        "anyOf": [*named, nested],
    }


@cache
def schema_text() -> str:
    """The schema as text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False)


def _of(node: Node) -> dict[str, Any]:
    if node.key.later:
        return _later(node.key)
    if node.key.kind == "object":
        return _object(node)
    out = _leaf(node.key)
    if node.item is not None:
        out["items"] = _of(node.item)
    return out


def _object(node: Node) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, child in node.children.items():
        properties[name] = _of(child)
        properties |= {f"{name}.{below}": found for below, found in properties[name].get("properties", {}).items()}
    out: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if "labels" in node.children and not node.key.path:
        out["patternProperties"] = {r"^labels\.": {"type": "string"}}
    if node.key.doc:
        out["description"] = node.key.doc
    required = [name for name, child in node.children.items() if child.key.required]
    if required and "[]" in node.key.path:
        out["required"] = required
    return out


def _leaf(key: Key) -> dict[str, Any]:
    out: dict[str, Any] = {"type": TYPES.get(key.kind, key.kind), "description": key.doc}
    if key.text_too:
        out = {"enum": [True, False, "true", "false"], "description": key.doc}
    if form := TEXTS.get(key.kind):
        number = "integer" if key.kind == "amount" else "number"
        out = {"type": [number, "string"], "pattern": f"^(?:{form})$", "description": key.doc}
    pairs = {"minimum": key.minimum, "maximum": key.maximum, "exclusiveMinimum": key.above, "default": key.default}
    out |= {name: value for name, value in pairs.items() if value is not None}
    if key.choices:
        out["enum"] = list(key.choices)
    if key.kind == "string":
        out |= {"maxLength": key.max_length} | ({"minLength": key.min_length} if key.min_length else {})
        if key.pattern and not key.resolved_by_cli:
            out["pattern"] = f"^(?:{key.pattern})$"
    elif key.kind == "list":
        out |= {"maxItems": key.max_length} | ({"minItems": key.min_length} if key.min_length else {})
    elif key.kind == "map":
        out |= {"additionalProperties": {"type": "string"}, "maxProperties": key.max_length}
    if nothing := [value for value in key.neutral if value == "" or (key.minimum is not None and value < key.minimum)]:
        out = {"anyOf": [{"enum": nothing}, out], "description": key.doc}
    return out


def _later(key: Key) -> dict[str, Any]:
    allowed: dict[str, Any] = {"enum": list(key.neutral)} if key.neutral else {"not": {}}
    return {"description": f"Not supported yet: {key.later}.", **allowed}
