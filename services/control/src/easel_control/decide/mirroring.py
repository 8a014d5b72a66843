"""Copies of a service's requests: which settings are sound, what they make of its row, what they cost. Pure.

Copies reach a target's replicas directly, so they are not mirrored again; two services that mirror each other are
refused all the same, for with a comparison each would execute what the other replays.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.ids import SERVICE_NAME
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring
from easel_control.decide.mutation import Change, raised, refuse_deleting
from easel_control.model import ServiceRow

MAX_TARGETS = 4
MAX_IGNORED = 64
MAX_PATH = 256
_STEP = r'[^\s.\[\]"]+|\[\]|\["(?:[^"\\]|\\.)*"\]'
PATH = re.compile(rf'(?:{_STEP})(?:\.[^\s.\[\]"]+|\[\]|\["(?:[^"\\]|\\.)*"\])*')
"""`a.b`, `boxes[].id`, `["a.b"].c`: as reports of differences name places."""
RANGES: dict[str, tuple[float, float, str]] = {
    "samples_per_s": (0.01, 100, "copies a second"),
    "twice_percent": (0.1, 100, "percent of the samples"),
    "body_kib": (1, 4096, "KiB"),
    "tolerance": (0, 1, "relative difference of two numbers"),
    "text_similarity": (0.01, 1, "1: only equal texts are equal"),
}
DEFAULTED = ("samples_per_s", "twice_percent", "body_kib", "text_similarity")
"""Of these, 0 means the usual value."""


class CompareAsked(Struct, frozen=True, kw_only=True):
    """What a comparison is asked to be, before it was looked at. 0: the usual value."""

    samples_per_s: float = 0.0
    twice_percent: float = 0.0
    body_kib: int = 0
    tolerance: float = 0.0
    ignore: tuple[str, ...] = ()
    text_similarity: float = 0.0
    no_side_effects: bool = False
    """The user's word that a request may be executed more than once."""


class MirrorAsked(Struct, frozen=True, kw_only=True):
    """What mirroring is asked to be, before it was looked at."""

    targets: tuple[str, ...]
    percent: float
    compare: CompareAsked | None = None

    @property
    def services(self) -> tuple[str, ...]:
        """Targets that may be services."""
        return tuple(t for t in self.targets[:MAX_TARGETS] if SERVICE_NAME.fullmatch(t))


def settings_of(name: str, asked: MirrorAsked, others: Mapping[str, ServiceRow]) -> Mirroring:
    """The settings for the service `name`; `others`: those of `asked.services` that exist. Raises InvalidInput with
    everything wrong."""
    errors = _target_errors(name, asked, others)
    errors += _range_errors("percent", asked.percent, 0, 100, "percent of the requests; 0: it is off")
    if asked.compare is not None:
        errors += _compare_errors(asked.compare)
    if errors:
        said = "; ".join(f"{e.path}: {e.message}" for e in errors)
        raise InvalidInput(f"mirroring of {name} is refused: {said}", tuple(errors))
    compare = None if asked.compare is None else _comparison(asked.compare)
    return Mirroring(targets=asked.targets, percent=asked.percent, compare=compare)


def mirrored(before: ServiceRow, mirroring: Mirroring, now: datetime) -> Change | None:
    """The service with its requests copied; no revision. None: they are, just so."""
    refuse_deleting(before)
    if mirroring == before.mirroring:
        return None
    row = replace(raised(before, now), mirroring=mirroring)
    return Change(row=row, verb="updated", reason="MirrorSet", message=told(mirroring))


def unmirrored(before: ServiceRow, now: datetime) -> Change | None:
    """The service without mirroring. None: it has none."""
    refuse_deleting(before)
    if before.mirroring is None:
        return None
    row = replace(raised(before, now), mirroring=None)
    return Change(row=row, verb="updated", reason="MirrorRemoved", message="requests are no longer copied")


def without_target(before: ServiceRow, gone: str, now: datetime) -> Change | None:
    """The service with a target less, because that is deleted; without mirroring if it was the only one. None: it is
    no target. Nobody asked for it, so the generation stays."""
    mirroring = before.mirroring
    if mirroring is None or gone not in mirroring.targets:
        return None
    left = tuple(t for t in mirroring.targets if t != gone)
    after = replace(mirroring, targets=left) if left else None
    row = replace(before, mirroring=after, row_version=before.row_version + 1, updated_at=now)
    rest = f"copies still go to {_listed(left)}" if left else "requests are no longer copied"
    return Change(row=row, verb="updated", reason="MirrorTargetDeleted", message=f"{gone} is deleted: {rest}")


def told(mirroring: Mirroring) -> str:
    """The settings in a sentence."""
    if not mirroring.percent:
        return f"mirroring to {_listed(mirroring.targets)} is off (0 %)"
    compared = ", and answers are compared" if mirroring.compare is not None else ""
    return f"{mirroring.percent:g} % of the requests are copied to {_listed(mirroring.targets)}{compared}"


def warnings(row: ServiceRow, mirroring: Mirroring, others: Mapping[str, ServiceRow]) -> tuple[str, ...]:
    """What the settings cost, in numbers, and why copies may go nowhere now. `others`: the targets that exist."""
    found = [_load(row.name, mirroring)] if mirroring.percent else ["it is off: percent is 0"]
    for target in mirroring.targets:
        if target == CANDIDATE:
            if row.rollout is None:
                found.append(f"no rollout of {row.name} is on: copies go nowhere until one is")
        elif target in others and others[target].wanted == "stopped":
            found.append(f"{target} is stopped: it gets no copies until it is started")
    if mirroring.compare is not None:
        found += [
            f"{path} names a member `body` of the answers' JSON; reports put `body.` before every path, ignore does not"
            for path in mirroring.compare.ignore if path.startswith(("body.", "body["))
        ]  # fmt: skip
    return tuple(found)


def _load(name: str, mirroring: Mirroring) -> str:
    """What is executed beside the requests themselves."""
    share = f"{mirroring.percent:g} % of the requests"
    compare = mirroring.compare
    if compare is None:
        return f"{share} of {name} are executed by {_listed(mirroring.targets)} too"
    most, twice = compare.samples_per_s, compare.samples_per_s * compare.twice_percent / 100
    target, stable = mirroring.targets[0], name
    if target == CANDIDATE:
        target, stable = f"{name}'s new revision", "its stable one"
    return (
        f"{share} of {name}, at most {most:g} a second, are executed by {target} and, again, by {stable}; "
        f"{compare.twice_percent:g} % of these twice (at most {most + twice:g} more a second for {stable})"
    )


def _listed(targets: tuple[str, ...]) -> str:
    shown = ["its new revision" if t == CANDIDATE else t for t in targets]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _target_errors(name: str, asked: MirrorAsked, others: Mapping[str, ServiceRow]) -> list[FieldError]:
    targets = asked.targets
    if not targets:
        return [FieldError(path="targets", code="MISSING", message=f"name a service, or {CANDIDATE}")]
    errors = []
    if len(targets) > MAX_TARGETS:
        message = f"{len(targets)} targets are given; at most {MAX_TARGETS} are allowed"
        errors.append(FieldError(path="targets", code="OUT_OF_RANGE", message=message))
    if asked.compare is not None and len(targets) != 1:
        message = f"{len(targets)} targets are given; answers are compared with those of exactly one"
        errors.append(FieldError(path="targets", code="CONFLICT", message=message))
    for i, target in enumerate(targets[:MAX_TARGETS]):
        path = f"targets[{i}]"
        if target in targets[:i]:
            errors.append(FieldError(path=path, code="CONFLICT", message=f"{target[:80]} is a target twice"))
        elif target != CANDIDATE:
            errors += _service_errors(path, name, target, others.get(target))
    return errors


def _service_errors(path: str, name: str, target: str, row: ServiceRow | None) -> list[FieldError]:
    """What stands against a service as a target."""
    if target == name:
        message, hint = "a service is no target of its own", f"{CANDIDATE} is its new revision while a rollout is on"
        return [FieldError(path=path, code="CONFLICT", message=message, hint=hint)]
    if row is None:
        message = f"there is no service {target[:80]!r}"
        return [FieldError(path=path, code="NOT_FOUND", message=message, hint="`easel ls` lists all")]
    if row.wanted == "deleted":
        return [FieldError(path=path, code="CONFLICT", message=f"{target} is being deleted")]
    if row.mirroring is not None and name in row.mirroring.targets:
        message, hint = f"{target} mirrors to {name}", f"`easel mirror rm {target}` ends that"
        return [FieldError(path=path, code="CONFLICT", message=message, hint=hint)]
    return []


def _compare_errors(asked: CompareAsked) -> list[FieldError]:
    errors = []
    if not asked.no_side_effects:
        message = "requests are executed again; confirm that this has no side effects"
        errors.append(
            FieldError(
                path="compare.no_side_effects", code="MISSING", message=message, hint="true, or `--no-side-effects`"
            )
        )
    for field, (low, high, unit) in RANGES.items():
        value = getattr(asked, field)
        if value == 0 and field in DEFAULTED:
            continue
        errors += _range_errors(f"compare.{field}", value, low, high, unit)
    if len(asked.ignore) > MAX_IGNORED:
        message = f"{len(asked.ignore)} paths are given; at most {MAX_IGNORED} are allowed"
        errors.append(FieldError(path="compare.ignore", code="OUT_OF_RANGE", message=message))
    for i, path in enumerate(asked.ignore[:MAX_IGNORED]):
        if len(path) > MAX_PATH or PATH.fullmatch(path) is None or not _texts_are_json(path):
            message = f"{path[:80]!r} is no path of at most {MAX_PATH} characters in a JSON answer"
            hint = 'such as meta.took_ms, boxes[].id (every item) or ["a.b"]'
            errors.append(FieldError(path=f"compare.ignore[{i}]", code="OUT_OF_RANGE", message=message, hint=hint))
    return errors


def _texts_are_json(path: str) -> bool:
    try:
        return all(isinstance(json.loads(text), str) for text in re.findall(r'"(?:[^"\\]|\\.)*"', path))
    except ValueError:
        return False


def _range_errors(path: str, value: float, low: float, high: float, unit: str) -> list[FieldError]:
    if math.isfinite(value) and low <= value <= high:
        return []
    message = f"{value:g} is not allowed; {low:g} to {high:g} is ({unit})"
    return [FieldError(path=path, code="OUT_OF_RANGE", message=message)]


def _comparison(asked: CompareAsked) -> Comparison:
    usual = Comparison()
    return Comparison(
        samples_per_s=asked.samples_per_s or usual.samples_per_s,
        twice_percent=asked.twice_percent or usual.twice_percent,
        body_kib=asked.body_kib or usual.body_kib,
        tolerance=asked.tolerance,
        ignore=tuple(dict.fromkeys(asked.ignore)),
        text_similarity=asked.text_similarity or usual.text_similarity,
    )
