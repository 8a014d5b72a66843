"""How a canary goes on: one call decides one step, from the canary and what is seen. Pure.

- starting: replicas of the first step's share come up, while all requests go to stable.
- baseline: thresholds of latency are taken from what stable answers.
- ramping: a step counts from when its weight is live everywhere. The next one is taken after the step's time and enough
  of the candidate's requests, when the replicas that it needs serve. Without requests it waits, for ever if need be.
- promoting: all requests, then the split ends and the rollout goes on as any other. By itself only where the candidate
  was shown to be not worse.
- A breach sets the weight to 0 first, which is one route change; then the rollout is taken back. Or it pauses there.

Must never: raise a weight before its replicas serve, promote by itself what is not shown to be not worse, or leave a
breach with a weight.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from easel_control.decide.canary import ALL, TIME_LIMIT, VERDICTS, Canary, noted, weighted
from easel_control.decide.canary_harm import Harm, finishable, harm, promotable
from easel_control.decide.evidence import BASELINE_REQUESTS, LEAST_BASELINE, freeze, is_frozen, required_requests

BASELINE_S = 60
"""Thresholds are taken after so long at the latest, if stable has answered LEAST_BASELINE requests."""
QUIET_S = 10.0
"""From when on it is said that no request comes; the newest seconds are always still to be counted."""
LEAVE_S = 10.0
"""How long the gateways get to take up weight 0 before the rollout is taken back all the same."""

Verdict = Literal["", "same", "differs", "not_enough_data", "away"]


class Sight(Struct, frozen=True, kw_only=True):
    """What a canary's next step depends on, beside itself."""

    now: datetime
    there: Literal["running", "stopped", "deleted", "gone"] = "running"
    """What is wanted of the service or group; gone: it has another rollout by now, or none."""
    wanted: int
    """Replicas wanted."""
    serving: int
    """The candidate's in traffic."""
    realised: int | None
    replicas_fail: str = ""
    """Why the candidate's replicas cannot run; empty: nothing of the kind."""
    no_room: str = ""
    """What keeps one of them from being placed."""
    no_counts: str = ""
    """Why there are no newer counts."""
    compared: Verdict = ""
    """Of the compared answers, where the plan asks for them and they were asked for."""
    compared_said: str = ""


class Move(Struct, frozen=True, kw_only=True):
    """A canary after its step, and what is to be done about its rollout.

    note: nothing · split: weight, share and words as the canary has them · back: it is taken back · promote: the split
    ends, the rollout goes on · end: it is no concern of the canary any more.
    """

    canary: Canary
    act: Literal["note", "split", "back", "promote", "end"] = "note"


def next_step(canary: Canary, sight: Sight) -> Move | None:
    """The step that is due; None: nothing changed."""
    move = _next(canary, sight)
    return None if move.act == "note" and move.canary == canary else move


def asks_compared(canary: Canary) -> bool:
    """Whether compared answers decide on the next step."""
    steps = canary.plan.steps_permille
    return canary.plan.mirror_gate and canary.state == "ramping" and steps[canary.step + 1 :] == (ALL,)


def _next(c: Canary, s: Sight) -> Move:
    if c.state in VERDICTS:
        return _leave(c, s)
    if s.there != "running":
        return _left_alone(c, s)
    found = harm(c, s.replicas_fail) or _differs(c, s)
    if found is not None:
        return fallen(c, found, s.now)
    if _is_late(c, s) and c.reason != TIME_LIMIT:
        said = f"the time limit of {c.plan.time_limit_s} s is over: it stays at {weighted(c.weight_permille)}"
        return Move(canary=noted(c, s.now, TIME_LIMIT, said), act="split")
    match c.state:
        case "starting":
            return _start(c, s)
        case "baseline":
            return _measure(c, s)
        case "ramping":
            return _ramp(c, s)
        case "promoting":
            return _promote(c, s)
        case _:
            how = "promote, abort" if c.is_fallen else "resume, step, promote, abort"
            return _waits(c, f"it is paused: `easel canary {{{how.replace(', ', '|')}}} {c.name}` goes on")


def fallen(c: Canary, found: Harm, now: datetime) -> Move:
    """Out of traffic, for what was found: back, or paused there."""
    back = c.plan.on_breach == "rollback"
    after = replace(
        c, weight_permille=0, step_at=now, live_at=None, waits_for="", state="rolled_back" if back else "paused",
        paused_by="" if back else "breach", by_hand=False,
    )  # fmt: skip
    return Move(canary=noted(after, now, found.reason, found.message), act="split")


def _differs(c: Canary, s: Sight) -> Harm | None:
    return Harm("AnswersDiffer", s.compared_said) if asks_compared(c) and s.compared == "differs" else None


def _leave(c: Canary, s: Sight) -> Move:
    """The verdict is there: the rollout is taken back when the candidate is out of traffic."""
    ended = replace(c, ended_at=s.now, waits_for="", weight_permille=0)
    if s.there in ("deleted", "gone"):
        return Move(canary=ended, act="end")
    given_up = s.now - c.step_at >= timedelta(seconds=LEAVE_S)
    if s.there == "stopped" or s.realised in (0, None) or given_up:
        return Move(canary=ended, act="back")
    return _waits(c, f"the gateways take the candidate out of traffic; {weighted(s.realised or 0)} is live")


def _left_alone(c: Canary, s: Sight) -> Move:
    """Its service or rollout was ended by somebody else."""
    said = {"stopped": "the service was stopped", "deleted": "it was deleted"}
    after = replace(c, state="aborted", weight_permille=0, step_at=s.now, live_at=None)
    after = noted(after, s.now, f"{s.there.capitalize()}", said.get(s.there, "its rollout is not on any more"))
    return _leave(after, s)


def _start(c: Canary, s: Sight) -> Move:
    if (missing := _missing(c, s)) or s.realised is None:
        return _waits(c, missing or "the gateways take up the split")
    after = replace(c, state="baseline", step_at=s.now)
    many = "replica of the candidate serves" if s.serving == 1 else "replicas of the candidate serve"
    said = f"{s.serving} {many}; stable is measured first"
    return Move(canary=_waits(noted(after, s.now, "Baseline", said), "").canary, act="split")


def _measure(c: Canary, s: Sight) -> Move:
    until = c.step_at + timedelta(seconds=BASELINE_S)
    if "latency" in c.plan.metrics and not is_frozen(c.evidence) and not c.step_asked:
        if s.now >= until:
            c = replace(c, evidence=freeze(c.evidence))
        if not is_frozen(c.evidence):
            return _waits(c, _baseline_missing(c, s, until))
    if c.plan.manual and not c.step_asked:
        return _waits(c, f"`easel canary step {c.name}` takes the first step")
    if (missing := _missing(c, s)) != "":
        return _waits(c, missing)
    return _take(c, s, 0)


def _baseline_missing(c: Canary, s: Sight, until: datetime) -> str:
    answers = sum(c.evidence.baseline.bins.values())
    if s.now >= until:
        return f"{answers} of the {LEAST_BASELINE} answers of stable that its latency is taken from{_away(s)}"
    return f"{answers} of {BASELINE_REQUESTS} answers of stable, or until {until:%H:%M:%S} UTC{_away(s)}"


def _ramp(c: Canary, s: Sight) -> Move:
    following = c.step + 1
    weight = c.plan.steps_permille[following]
    if (wait := _not_yet(c, s) or _gate(c, s, weight)) != "":
        return _waits(c, wait)
    if c.share_permille < weight and c.kind == "service":
        said = f"replicas for {weighted(weight)} come up"
        return Move(canary=noted(replace(c, share_permille=weight, waits_for=""), s.now, "Replicas", said), act="split")
    if (missing := _missing(c, s)) != "":
        return _waits(c, missing)
    return _take(c, s, following)


def _take(c: Canary, s: Sight, index: int) -> Move:
    weight = c.plan.steps_permille[index]
    after = replace(
        c, step=index, weight_permille=weight, share_permille=max(c.share_permille, weight), step_at=s.now,
        live_at=None, step_requests=0, step_errors=0, step_asked=False, waits_for="",
        state="promoting" if weight == ALL else "ramping",
    )  # fmt: skip
    counted = f" after {c.step_requests} requests of the candidate" if c.step >= 0 else ""
    said = f"{weighted(c.weight_permille)} → {weighted(weight)}{counted}"
    return Move(canary=noted(after, s.now, "Step", said), act="split")


def _promote(c: Canary, s: Sight) -> Move:
    if c.share_permille < ALL:
        return Move(canary=replace(c, share_permille=ALL), act="split")
    if (missing := _missing(c, s)) != "" and (s.wanted or not c.by_hand):
        return _waits(c, missing)
    if c.weight_permille != ALL:
        return _take(c, s, len(c.plan.steps_permille) - 1)
    if c.by_hand:
        if s.realised != ALL and s.wanted:
            return _waits(c, _applying(c))
    elif (wait := _not_yet(c, s) or finishable(c)) != "":
        return _waits(c, wait)
    after = replace(c, state="promoted", ended_at=s.now, waits_for="")
    how = "by hand" if c.by_hand else f"after {c.evidence.candidate.requests} requests"
    return Move(canary=noted(after, s.now, "Promoted", f"promoted {how}"), act="promote")


def _not_yet(c: Canary, s: Sight) -> str:
    """What stands before the end of the present step; empty: nothing."""
    if s.realised != c.weight_permille or c.live_at is None:
        return _missing(c, s) or _applying(c)
    if c.step_asked:
        return ""
    if c.plan.manual:
        do = "promote" if c.weight_permille == ALL else "step"
        return f"steps are taken by hand: `easel canary {do} {c.name}`"
    if _is_late(c, s):
        gate = promotable(c)
        return f"the time limit of {c.plan.time_limit_s} s is over, so it stays until somebody decides" + (
            f"; {gate}" if gate else ""
        )
    needed = c.plan.min_requests or required_requests(c.evidence, c.weight_permille)
    if c.step_requests < needed:
        if not c.step_requests and s.now - c.live_at >= timedelta(seconds=QUIET_S):
            return f"no request has reached the candidate in this step; {needed} are needed{_away(s)}"
        return f"{c.step_requests} of {needed} requests of the candidate in this step{_away(s)}"
    until = c.live_at + timedelta(seconds=c.plan.step_time_s)
    return f"the step lasts until {until:%H:%M:%S} UTC" if s.now < until else ""


def _is_late(c: Canary, s: Sight) -> bool:
    """Whether it goes on no more by itself."""
    by_itself = c.state in ("ramping", "promoting") and not (c.by_hand or c.step_asked or c.plan.manual)
    return by_itself and s.now - (c.resumed_at or c.started_at) >= timedelta(seconds=c.plan.time_limit_s)


def _gate(c: Canary, s: Sight, weight: int) -> str:
    """What stands before all requests go over, where some have been compared."""
    if weight != ALL or c.plan.manual:
        return ""
    if (missing := promotable(c)) != "":
        return missing + _away(s)
    if c.plan.mirror_gate and s.compared != "same":
        return f"compared answers: {s.compared_said or 'not asked for yet'}"
    return ""


def _missing(c: Canary, s: Sight) -> str:
    """What the candidate lacks in replicas for its share; empty: nothing."""
    if not s.wanted:
        return "no replica is wanted: it goes on when one is"
    needed = c.needed(s.wanted)
    if s.serving >= needed:
        return ""
    room = f"; {s.no_room}" if s.no_room else ""
    return f"{s.serving} of {needed} replicas of the candidate serve{room}"


def _applying(c: Canary) -> str:
    live = "" if c.realised_permille is None else f"; {weighted(c.realised_permille)} is live"
    return f"the gateways take up {weighted(c.weight_permille)}{live}"


def _away(s: Sight) -> str:
    return f"; {s.no_counts}" if s.no_counts else ""


def _waits(c: Canary, what: str) -> Move:
    return Move(canary=replace(c, waits_for=what))
