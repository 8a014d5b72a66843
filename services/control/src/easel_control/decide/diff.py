"""What differs between two revisions, key by key. Secrets are never shown, only that they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from easel_contracts.spec import SourceDigest
from easel_control.decide.document import join, same
from easel_control.decide.merge import of_revision
from easel_control.decide.secrets import RevisionSecrets

HIDDEN = "(not shown)"
_ENV = re.compile(r"containers\[\d+\]\.env")


class Difference(Struct, frozen=True, kw_only=True):
    """One key, or one source, that differs."""

    path: str
    before: str
    """JSON text; empty: not there."""
    after: str


class Side(Struct, frozen=True, kw_only=True):
    """One of the two revisions."""

    config: dict[str, Any]
    """As it is shown: without secrets."""
    secrets: RevisionSecrets
    sources: tuple[SourceDigest, ...]

    def __repr__(self) -> str:
        return "Side(…)"


def differences(base: Side, other: Side) -> list[Difference]:
    """From `base` to `other`, by path; what does not belong to a revision (instance, autoscaler, …) is left out."""
    before, after = _leaves(base), _leaves(other)
    hidden, hidden_now = _hidden(base.secrets), _hidden(other.secrets)
    changed = {path for path in hidden.keys() & hidden_now.keys() if hidden[path] != hidden_now[path]}
    paths = [*before, *(path for path in after if path not in before)]
    found = [
        Difference(path=path, before=_text(before, path), after=_text(after, path))
        for path in paths
        if path not in before or path not in after or path in changed or not same(before[path], after[path])
    ]
    return [*found, *_of_sources(base.sources, other.sources)]


def _of_sources(before: Iterable[SourceDigest], after: Iterable[SourceDigest]) -> list[Difference]:
    """Digests of the same source that differ: its content did, though its configuration did not."""
    was, now = ({s.source: s.digest for s in side} for side in (before, after))
    return [
        Difference(path=source, before=_text(was, source), after=_text(now, source))
        for source in dict.fromkeys([*was, *now])
        if was.get(source) != now.get(source)
    ]


def _leaves(side: Side) -> dict[str, Any]:
    """Path → value of everything that is not an object or a list with something in it."""
    found: dict[str, Any] = {}
    _spread(of_revision(side.config), "", found)
    return found | dict.fromkeys(_hidden(side.secrets), HIDDEN)


def _hidden(secrets: RevisionSecrets) -> dict[str, str]:
    """Path → value of what is never shown."""
    found = {
        f"containers[{i}].env[{entry.name}].value": entry.value
        for i, env in enumerate(secrets.containers)
        for entry in env
        if entry.value is not None
    }
    return found | {f"storage[{i}].git.password": login.password for i, login in secrets.logins.items()}


def _spread(value: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _spread(item, join(path, key), found)
    elif _ENV.fullmatch(path):
        for entry in value:
            if "secretRef" in entry:
                found[f"{path}[{entry['name']}].secretRef.name"] = entry["secretRef"]["name"]
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            _spread(item, f"{path}[{i}]", found)
    else:
        found[path] = value


def _text(values: dict[str, Any], path: str) -> str:
    return json.dumps(values[path], ensure_ascii=False) if path in values else ""
