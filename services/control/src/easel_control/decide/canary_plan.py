"""What a canary is asked to do: its steps, what it is judged by, and what happens when it is worse. Pure."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal, cast

from msgspec import Struct

from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.spec import Match, Sticky
from easel_control.decide.evidence import KINDS, Limits

STEPS_PERMILLE = (10, 50, 100, 250, 500, 1000)
STEP_TIME_S, TIME_LIMIT_S = 60, 7200
ERROR_PERCENT, LATENCY_RATIO = 0.5, 1.2
MAX_STEPS, MAX_TIME_S, MAX_REQUESTS = 50, 30 * 86400, 1_000_000
WHERE = ("header", "cookie", "query")
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
"""Of a header, cookie or query parameter."""

Where = Literal["header", "cookie", "query"]
OnBreach = Literal["rollback", "pause"]


class Plan(Struct, frozen=True, kw_only=True):
    """How a canary goes on. Made by `planned`, which has checked it."""

    steps_permille: tuple[int, ...] = STEPS_PERMILLE
    """Rising, the last 1000. The first may be 0 where `match` names requests."""
    step_time_s: int = STEP_TIME_S
    metrics: tuple[str, ...] = ("errors", "latency")
    min_requests: int = 0
    """Of the candidate in a step before the next; 0: as the method needs."""
    time_limit_s: int = TIME_LIMIT_S
    on_breach: OnBreach = "rollback"
    match: Match | None = None
    sticky: Sticky | None = None
    keep_stable: bool = False
    error_percent: float = ERROR_PERCENT
    latency_ratio: float = LATENCY_RATIO
    mirror_gate: bool = False
    manual: bool = False

    @property
    def limits(self) -> Limits:
        """What the evidence is held against."""
        return Limits(error_percent=self.error_percent, latency_ratio=self.latency_ratio, metrics=self.metrics)

    @property
    def biased(self) -> bool:
        """Whether requests may reach the candidate more often than its weight says."""
        return self.match is not None or self.sticky is not None


class Asked(Struct, frozen=True, kw_only=True):
    """A plan as a request has it: zeros and empty texts stand for the defaults."""

    steps_permille: tuple[int, ...] = ()
    step_time_s: int = 0
    metrics: tuple[str, ...] = ()
    min_requests: int = 0
    time_limit_s: int = 0
    on_breach: str = ""
    match: tuple[str, str, str] | None = None
    """(kind, name, value)."""
    sticky: tuple[str, str] | None = None
    keep_stable: bool = False
    error_limit_percent: float = 0.0
    latency_limit_ratio: float = 0.0
    mirror_gate: bool = False
    manual: bool = False


def planned(asked: Asked) -> Plan:
    """The plan with its defaults. Raises InvalidInput with everything that is wrong."""
    wrong = [*_wrong_steps(asked), *_wrong_numbers(asked), *_wrong_words(asked)]
    if wrong:
        said = "; ".join(f"{e.path}: {e.message}" for e in wrong[:3])
        raise InvalidInput(f"the plan of the canary cannot be followed: {said}", tuple(wrong), hint=wrong[0].hint)
    return Plan(
        steps_permille=asked.steps_permille or STEPS_PERMILLE, step_time_s=asked.step_time_s or STEP_TIME_S,
        metrics=tuple(dict.fromkeys(asked.metrics)) or tuple(KINDS), min_requests=asked.min_requests,
        time_limit_s=asked.time_limit_s or TIME_LIMIT_S, on_breach=cast("OnBreach", asked.on_breach or "rollback"),
        match=asked.match and Match(kind=cast("Where", asked.match[0]), name=asked.match[1], value=asked.match[2]),
        sticky=asked.sticky and Sticky(kind=cast("Where", asked.sticky[0]), name=asked.sticky[1]),
        keep_stable=asked.keep_stable, error_percent=asked.error_limit_percent or ERROR_PERCENT,
        latency_ratio=asked.latency_limit_ratio or LATENCY_RATIO, mirror_gate=asked.mirror_gate, manual=asked.manual,
    )  # fmt: skip


def _wrong_steps(asked: Asked) -> list[FieldError]:
    steps = asked.steps_permille
    if not steps:
        return []
    hint = "e.g. 1, 5, 25, 50, 100 percent"
    least = 0 if asked.match else 1
    if len(steps) > MAX_STEPS or any(not least <= step <= 1000 for step in steps):
        allowed = f"{least} to 1000 thousandths each, at most {MAX_STEPS} of them"
        return [_error("steps_permille", f"{list(steps)[:10]} is not allowed; {allowed}", hint)]
    if steps[-1] != 1000 or any(later <= step for step, later in pairwise(steps)):
        return [_error("steps_permille", f"{list(steps)} do not rise to 1000, which is all requests", hint)]
    return []


def _wrong_numbers(asked: Asked) -> list[FieldError]:
    wrong = []
    for name, number, highest in (
        ("step_time_s", asked.step_time_s, MAX_TIME_S), ("time_limit_s", asked.time_limit_s, MAX_TIME_S),
        ("min_requests", asked.min_requests, MAX_REQUESTS),
    ):  # fmt: skip
        if not 0 <= number <= highest:
            wrong.append(_error(name, f"{number} is not allowed; 0 (the default) to {highest} is"))
    if asked.error_limit_percent and not 0.001 <= asked.error_limit_percent <= 99:
        wrong.append(_error("error_limit_percent", f"{asked.error_limit_percent:g} is not allowed; 0.001 to 99 is"))
    if asked.latency_limit_ratio and not 1.01 <= asked.latency_limit_ratio <= 100:
        wrong.append(_error("latency_limit_ratio", f"{asked.latency_limit_ratio:g} is not allowed; 1.01 to 100 is"))
    return wrong


def _wrong_words(asked: Asked) -> list[FieldError]:
    wrong = [_error("metrics", f"{metric!r} is not known; {', '.join(KINDS)} are")
             for metric in asked.metrics if metric not in KINDS]  # fmt: skip
    if asked.on_breach not in ("", "rollback", "pause"):
        wrong.append(_error("on_breach", f"{asked.on_breach!r} is not allowed; rollback or pause is"))
    for field, told in (("match", asked.match), ("sticky", asked.sticky)):
        if told is None:
            continue
        if told[0] not in WHERE:
            wrong.append(_error(f"{field}.kind", f"{told[0]!r} is not allowed; {', '.join(WHERE)} is"))
        if not NAME.fullmatch(told[1]):
            wrong.append(_error(f"{field}.name", f"{told[1]!r} is no name of a {told[0] or 'header'}"))
    if asked.match and (not asked.match[2].isprintable() or not 0 < len(asked.match[2]) <= 1024):
        wrong.append(_error("match.value", "1 to 1024 printable characters are needed"))
    return wrong


def _error(name: str, message: str, hint: str = "") -> FieldError:
    return FieldError(path=f"plan.{name}", code="OUT_OF_RANGE", message=message, hint=hint)
