"""Whole canaries, for canary.py: control's own steps (decide/canary_steps.py) over simulated traffic.

What control asks for is done at once: a weight is live everywhere when it is decided, and replicas enough for all
requests serve from the start. So the times are those of the decisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from canary_rules import NOT_WORSE, UNKNOWN, WORSE, Change, Traffic

from easel_control.decide.canary import VERDICTS, Canary
from easel_control.decide.canary_plan import Plan
from easel_control.decide.canary_seconds import Reading, looked
from easel_control.decide.canary_steps import Sight, next_step
from easel_control.decide.evidence import begin

PLAN = Plan()
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = 10
VERDICT = {"promoted": NOT_WORSE, "rolled_back": WORSE}
SPARE_S = 600
"""Beyond the time limit, which is checked between steps."""


@dataclass(frozen=True)
class Outcome:
    """How a canary ended."""

    verdict: str
    took_s: int
    """Since its start, the baseline included."""
    requests: int
    """Of the candidate, before all went over to it."""


def whole_canary(change: Change, rate: float, tick_s: int, seed: int) -> Outcome:
    """One canary with the default plan, looked at every `tick_s` seconds."""
    traffic = Traffic(change, rate, seed)
    canary = Canary(
        id="c", workspace="w", name="s", uid="u", plan=PLAN, reason="", message="", started_at=BEGAN, step_at=BEGAN,
        share_permille=PLAN.steps_permille[0], evidence=begin(PLAN.limits),
    )  # fmt: skip
    began_s, compared = int(BEGAN.timestamp()), 0
    for at_s in range(0, PLAN.time_limit_s + SPARE_S, tick_s):
        weight, begin_s = canary.weight_permille, began_s + at_s
        seconds = tuple(traffic.next(weight / 1000, tick_s).seconds(begin_s))
        now = BEGAN + timedelta(seconds=at_s + tick_s)
        reading = Reading(seconds=seconds, final_through_s=begin_s + tick_s - 1)
        canary = looked(canary, reading, weight, WANTED, now)
        if weight < 1000:
            compared += sum(second.candidate.requests for second in seconds)
        sight = Sight(now=now, wanted=WANTED, serving=WANTED, realised=weight)
        while (move := next_step(canary, sight)) is not None and move.canary != canary:
            canary = move.canary
            if canary.state in VERDICTS:
                return Outcome(VERDICT[canary.state], at_s + tick_s, compared)
            if move.act != "note":
                break
    return Outcome(UNKNOWN, PLAN.time_limit_s, compared)
