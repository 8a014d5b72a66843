"""`-Dpath=value`: which key of a service.json becomes what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from copy import deepcopy
from itertools import pairwise
from typing import Any

from easel_contracts.errors import FieldError, InvalidInput

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_WHOLE = re.compile(r"[^.\[\]=]+(?:\[\d+\]|\.[^.\[\]=]+)*")

Path = list[str | int]


def parse(texts: Iterable[str], *, whole_below: str = "") -> list[tuple[Path, Any]]:
    """Each `path=value` as (steps, value). A value is JSON where it can be, else a text. Raises InvalidInput.

    `whole_below`: a key whose own keys are taken whole, dots and brackets included, such as `queue[backlog]`.
    """
    found: list[tuple[Path, Any]] = []
    wrong = []
    for text in texts:
        path, sign, value = text.partition("=")
        head, _, rest = path.strip().partition(".")
        if whole_below and head == whole_below and rest and sign:
            found.append(([head, rest], _value(value)))
            continue
        if not sign or not _WHOLE.fullmatch(path.strip()):
            wrong.append(FieldError(path=text, code="SYNTAX", message="is not of the form path=value",
                                    hint="e.g. -Dmetadata.instance=2 or -Dcontainers[0].port=8000"))  # fmt: skip
            continue
        steps: Path = [int(index) if index else name for name, index in _STEP.findall(path.strip())]
        found.append((steps, _value(value)))
    if wrong:
        raise InvalidInput("-D cannot be read", tuple(wrong))
    return found


def changes(
    assignments: Iterable[tuple[Path, Any]], document: dict[str, Any], current: dict[str, Any]
) -> dict[str, Any]:
    """`document` with the assignments made in it.

    A list is only ever replaced as a whole, so one that is touched inside and not in `document` is taken from
    `current`, the service's present configuration. Raises InvalidInput where a list has no such item.
    """
    changed = deepcopy(document)
    wrong = []
    for steps, value in assignments:
        try:
            _put(changed, steps, value, current)
        except (LookupError, TypeError) as error:
            name = shown(steps)
            wrong.append(FieldError(path=name, code="NO_SUCH_ITEM", message=f"there is no such place: {error}"))
    if wrong:
        raise InvalidInput("-D names what does not exist", tuple(wrong))
    return changed


def needs_current(assignments: Iterable[tuple[Path, Any]], document: dict[str, Any]) -> bool:
    """Whether a list is touched inside that `document` does not hold."""
    return any(any(isinstance(step, int) for step in steps) and steps[0] not in document for steps, _ in assignments)


def shown(steps: Path) -> str:
    """The steps as they are written."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def _put(changed: dict[str, Any], steps: Path, value: Any, current: dict[str, Any]) -> None:
    first = str(steps[0])
    if first not in changed and any(isinstance(step, int) for step in steps):
        changed[first] = deepcopy(current.get(first, {} if isinstance(steps[1], str) else []))
    at: Any = changed
    for step, following in pairwise(steps):
        new: Any = {} if isinstance(following, str) else []
        if isinstance(step, str) and step not in at:
            at[step] = new
        elif isinstance(at, list) and step == len(at):
            at.append(new)
        at = at[step]
    if isinstance(at, list) and isinstance(steps[-1], int) and steps[-1] == len(at):
        at.append(value)
    else:
        at[steps[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
