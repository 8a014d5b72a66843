"""What people do to a canary: promote, pause, resume, step, abort. Pure; each raises Conflict where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_control.decide.canary import ALL, VERDICTS, Burst, Canary, noted
from easel_control.decide.canary_steps import Move
from easel_control.decide.evidence import begin


def promoted(canary: Canary, actor: str, now: datetime) -> Move | None:
    """All requests to the candidate as soon as all its replicas serve; nothing is judged on the way."""
    _refuse_over(canary)
    if canary.by_hand:
        return None
    after = replace(_unpaused(canary, now), state="promoting", by_hand=True)
    return Move(canary=noted(after, now, "PromoteAsked", f"{actor} promoted it"), act="split")


def paused(canary: Canary, actor: str, now: datetime) -> Move | None:
    """It stays at its weight, and goes back all the same where it is worse."""
    _refuse_over(canary)
    if canary.state == "paused":
        return None
    after = replace(canary, state="paused", paused_by="user", by_hand=False, step_asked=False, waits_for="")
    return Move(canary=noted(after, now, "PausedByUser", f"{actor} paused it"), act="split")


def resumed(canary: Canary, actor: str, now: datetime) -> Move | None:
    """Goes on where it stood; after a breach from the beginning, with no evidence held against it."""
    _refuse_over(canary)
    if canary.state != "paused":
        return None
    return Move(canary=noted(_unpaused(canary, now), now, "Resumed", f"{actor} resumed it"), act="split")


def stepped(canary: Canary, actor: str, now: datetime) -> Move | None:
    """The next weight as soon as its replicas serve, whatever the time and the number of requests."""
    _refuse_over(canary)
    if canary.is_fallen:
        raise Conflict("CANARY_FELL", f"the canary of {canary.name} is out of traffic: {canary.message}",
                       f"`easel canary resume {canary.name}` begins it anew")  # fmt: skip
    left = canary.plan.steps_permille[canary.step + 1 :]
    if not left or (left == (ALL,) and not canary.plan.manual):
        raise Conflict("LAST_STEP", f"what is left of the canary of {canary.name} is to promote it",
                       f"`easel canary promote {canary.name}` does")  # fmt: skip
    if canary.step_asked:
        return None
    after = replace(_unpaused(canary, now), step_asked=True)
    return Move(canary=noted(after, now, "StepAsked", f"{actor} asked for the next step"), act="split")


def aborted(canary: Canary, actor: str, now: datetime) -> Move | None:
    """Out of traffic, then back to what was stable."""
    if canary.state == "aborted":
        return None
    _refuse_over(canary)
    after = replace(canary, state="aborted", weight_permille=0, step_at=now, live_at=None, waits_for="", paused_by="")
    return Move(canary=noted(after, now, "AbortedByUser", f"{actor} aborted it"), act="split")


HANDS: dict[str, Callable[[Canary, str, datetime], Move | None]] = {
    "promote": promoted, "pause": paused, "resume": resumed, "abort": aborted, "step": stepped,
}  # fmt: skip
"""Action → what it does; None: it is so already."""


def _unpaused(canary: Canary, now: datetime) -> Canary:
    if canary.state != "paused":
        return canary
    canary = replace(canary, resumed_at=now, waits_for="")
    if canary.is_fallen:
        return replace(
            canary, state="starting", paused_by="", step=-1, share_permille=canary.plan.steps_permille[0],
            step_at=now, live_at=None, step_requests=0, step_errors=0, burst=Burst(),
            evidence=begin(canary.plan.limits),
        )  # fmt: skip
    state = "starting" if canary.step < 0 else "promoting" if canary.weight_permille == ALL else "ramping"
    return replace(canary, state=state, paused_by="", step_at=now, live_at=None, step_requests=0, step_errors=0)


def _refuse_over(canary: Canary) -> None:
    if canary.state in VERDICTS:
        raise Conflict("CANARY_OVER", f"the canary of {canary.name} is {canary.state.replace('_', ' ')}: "
                       f"{canary.message}")  # fmt: skip
