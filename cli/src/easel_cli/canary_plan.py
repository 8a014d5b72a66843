"""The options of `easel canary start` as a plan: what can be read. What is allowed, the platform decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easel_cli.durations import seconds_of

if TYPE_CHECKING:
    from easel_contracts.errors import InvalidInput
    from easel_sdk.types import CanaryPlan, TrafficMatch, TrafficSticky


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """As they were given."""

    steps: str | None = None
    step_time: str | None = None
    metrics: tuple[str, ...] = ()
    min_requests: int = 0
    time_limit: str | None = None
    error_limit: float = 0.0
    latency_limit: float = 0.0
    on_breach: str = ""
    keep_stable: bool = False
    blue_green: bool = False
    mirror_gate: bool = False
    manual: bool = False
    header: str | None = None
    cookie: str | None = None
    query: str | None = None
    sticky: str | None = None


def plan_of(options: PlanOptions) -> CanaryPlan:
    """The plan; raises InvalidInput that names the option."""
    from easel_sdk.types import CanaryPlan

    if options.blue_green and options.steps is not None:
        raise _wrong("--blue-green has one step, to 100 %: leave --steps out, or --blue-green")
    steps = [1000] if options.blue_green else permilles(options.steps)
    return CanaryPlan(
        steps_permille=steps, step_time_s=_seconds(options.step_time, "--step-time"), metrics=options.metrics,
        min_requests=options.min_requests, time_limit_s=_seconds(options.time_limit, "--time-limit"),
        on_breach=options.on_breach, match=_match(options), sticky=_sticky(options.sticky),
        keep_stable=options.keep_stable or options.blue_green, error_limit_percent=options.error_limit,
        latency_limit_ratio=options.latency_limit, mirror_gate=options.mirror_gate, manual=options.manual,
    )  # fmt: skip


def permilles(text: str | None) -> list[int]:
    """`1,5,0.5` in thousandths; empty: not given."""
    if text is None:
        return []
    found = []
    for part in text.split(","):
        word = part.strip().removesuffix("%").strip()
        try:
            permille = float(word) * 10
        except ValueError:
            permille = -1.0
        if not 0 <= permille <= 1000 or abs(permille - round(permille)) > 1e-6:
            raise _wrong(f"--steps: {part.strip()!r} is no share of requests",
                         "percents from 0 to 100 in steps of 0.1, e.g. --steps 1,5,25,50,100")  # fmt: skip
        found.append(round(permille))
    return found


def _seconds(text: str | None, option: str) -> int:
    if text is None:
        return 0
    found = seconds_of(text, option)
    if found < 1:
        raise _wrong(f"{option} {text!r} is too short", "one second at least")
    return round(found)


def _match(options: PlanOptions) -> TrafficMatch | None:
    from easel_sdk.types import TrafficMatch

    given = [(kind, text) for kind, text in (("header", options.header), ("cookie", options.cookie),
                                             ("query", options.query)) if text is not None]  # fmt: skip
    if not given:
        return None
    if len(given) > 1:
        raise _wrong("--header, --cookie and --query stand for each other", "give one of them")
    kind, text = given[0]
    name, sign, value = text.partition("=")
    if not sign:
        raise _wrong(f"--{kind} {text!r} is not of the form NAME=VALUE", f"e.g. --{kind} x-canary=1")
    return TrafficMatch(kind=kind, name=name.strip(), value=value.strip())


def _sticky(text: str | None) -> TrafficSticky | None:
    from easel_sdk.types import TrafficSticky

    if text is None:
        return None
    kind, sign, name = text.partition(":")
    if not sign or kind not in ("header", "cookie", "query"):
        raise _wrong(f"--sticky {text!r} is not of the form header|cookie|query:NAME", "e.g. --sticky header:x-user")
    return TrafficSticky(kind=kind, name=name.strip())


def _wrong(message: str, hint: str = "") -> InvalidInput:
    from easel_contracts.errors import InvalidInput

    return InvalidInput(message, hint=hint)
