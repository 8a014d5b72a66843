"""Updates: a change laid over the stored configuration, and what of a configuration may be shown."""

from __future__ import annotations

import copy
from typing import Any

from msgspec.structs import replace

from easel_control.decide.document import Document


def merged(stored: dict[str, Any], change: Document) -> Document:
    """`change` deep-merged into `stored`: objects by key, lists and values whole; null takes a key away.

    Places of the change's text stay usable, because paths are the same.
    """
    return Document(value=_merge(stored, change.value), errors=change.errors, places=change.places)


def _merge(stored: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(stored)
    for key, value in change.items():
        if value is None and key in out:
            del out[key]
        elif isinstance(value, dict):
            before = out.get(key)
            out[key] = _merge(before if isinstance(before, dict) else {}, value)
        else:
            out[key] = value
    return out


def redacted(config: dict[str, Any]) -> dict[str, Any]:
    """What may be shown: environment values are left out, so that posting it again keeps them."""
    out: dict[str, Any] = copy.deepcopy(config)
    out.pop("token", None)
    for container in out.get("containers", ()):
        for entry in container.get("env", ()):
            entry.pop("value", None)
    return out


NOT_OF_REVISION = (
    ("metadata", "instance"), ("metadata", "workspace_id"), ("metadata", "rolling_strategy"), ("autoscaler",),
    ("labels",), ("rollout",),
)  # fmt: skip
"""Sections whose change makes no revision: a switch to another revision leaves them as they are."""


def laid_over(revision: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """A revision's configuration, with what does not belong to a revision as it is in the current one."""
    out = of_revision(revision)
    for *parents, last in NOT_OF_REVISION:
        there, here = current, out
        for part in parents:
            there, here = there.get(part, {}), here.setdefault(part, {})
        if last in there:
            here[last] = copy.deepcopy(there[last])
    return out


def of_revision(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that belongs to its revision."""
    out: dict[str, Any] = copy.deepcopy(config)
    for *parents, last in NOT_OF_REVISION:
        at = out
        for part in parents:
            at = at.get(part, {})
        at.pop(last, None)
    return out


def with_values(config: dict[str, Any], env: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A shown configuration with the values of its environment put back; `env`: name → its `value`, if it has one."""
    out: dict[str, Any] = copy.deepcopy(config)
    for container in out.get("containers", ()):
        for entry in container.get("env", ()):
            entry.update({k: v for k, v in env.get(entry["name"], {}).items() if k == "value"})
    return out


def with_kept_values(document: Document, stored: dict[str, Any]) -> Document:
    """The document with the stored values of environment entries that give neither `value` nor `secretRef`."""
    kept = {
        entry["name"]: {k: v for k, v in entry.items() if k in ("value", "secretRef")}
        for container in stored.get("containers", ())
        for entry in container.get("env", ())
    }
    value: dict[str, Any] = copy.deepcopy(document.value)
    containers = value.get("containers")
    for container in containers if isinstance(containers, list) else ():
        env = container.get("env") if isinstance(container, dict) else None
        for entry in env if isinstance(env, list) else ():
            if isinstance(entry, dict) and not {"value", "secretRef"} & entry.keys():
                name = entry.get("name")
                entry.update(kept.get(name, {}) if isinstance(name, str) else {})
    return replace(document, value=value)
