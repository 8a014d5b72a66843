"""A canary as control holds it: where it is, what was decided, what was seen, and what it is to do. Frozen values.

starting → baseline → ramping → promoting → promoted; ramping ⇄ paused; from any of these to rolled_back or aborted.
The steps between them are in decide/canary_steps.py, those by hand in decide/canary_hands.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.spec import Split
from easel_control.decide.canary_plan import Plan
from easel_control.decide.evidence import Evidence
from easel_control.decide.rollout import wave_size

State = Literal["starting", "baseline", "ramping", "paused", "promoting", "promoted", "rolled_back", "aborted"]
VERDICTS = frozenset(("promoted", "rolled_back", "aborted"))
"""States in which nothing is open any more but that the weight is 0 everywhere."""
TIME_LIMIT = "TimeLimit"
"""Reason of a canary that goes on no more by itself."""
KEEP_NOTES = 100
ALL = 1000


class Note(Struct, frozen=True, kw_only=True):
    """A line of the journal."""

    at: datetime
    reason: str
    message: str
    weight_permille: int


class Span(Struct, frozen=True):
    """Whole seconds in which a weight was live on every Envoy: from_s up to, without, to_s."""

    permille: int
    from_s: int
    to_s: int
    is_open: bool = True
    """It is live still, as far as is known."""


class Burst(Struct, frozen=True):
    """The newest requests, as many as the fast stop looks at."""

    requests: int = 0
    errors: int = 0
    stable_requests: int = 0
    stable_errors: int = 0


class Canary(Struct, frozen=True, kw_only=True):
    """One canary, on or over."""

    id: str
    """Also the subject under which its requests are counted."""
    workspace: str
    name: str
    kind: Literal["service", "group"] = "service"
    uid: str
    """Of the service or group: another one of the same name is none of its business."""
    row_version: int = 1
    plan: Plan
    state: State = "starting"
    reason: str
    message: str
    waits_for: str = ""
    stable_revision: int = 0
    candidate_revision: int = 0
    restart_nonce: int = 0
    """Of the candidate revision: with it, what its replicas are told by."""
    candidate: str = ""
    """Of a group: the member that is to take over."""
    step: int = -1
    """Index in the plan's steps; -1: none was taken yet."""
    share_permille: int
    """Of the replicas wanted, what shall be of the candidate: what the weight needs, or the next one will."""
    weight_permille: int = 0
    """Decided."""
    realised_permille: int | None = None
    """Live on every Envoy; None: requests are not split yet."""
    by_hand: bool = False
    """Promoted by somebody: nothing is judged but whether the replicas run."""
    step_asked: bool = False
    """Somebody asked for the next step: time and requests do not count."""
    paused_by: Literal["", "user", "breach"] = ""
    step_at: datetime
    """When the state or weight was decided."""
    live_at: datetime | None = None
    """Since when the weight has been live without a break."""
    step_requests: int = 0
    step_errors: int = 0
    """The candidate's in the present step."""
    spans: tuple[Span, ...] = ()
    """Those with seconds that have not been looked at, and the open one."""
    through_unix_s: int = 0
    """Seconds up to this one have been looked at."""
    serving: int = 0
    """Candidate's replicas that served at the last look."""
    cold_until_s: int = 0
    """Latencies of seconds before are not judged: a replica of the candidate had just come up."""
    burst: Burst = Burst()
    evidence: Evidence
    journal: tuple[Note, ...] = ()
    started_at: datetime
    resumed_at: datetime | None = None
    """When it was last resumed, and the time limit begun anew; None: never."""
    ended_at: datetime | None = None
    """None: it is on."""

    @property
    def is_on(self) -> bool:
        """Whether requests are still split for it."""
        return self.ended_at is None

    @property
    def share_percent(self) -> int:
        """`share_permille` as the rollout has it, rounded up."""
        return max(-(-self.share_permille // 10), 1)

    @property
    def is_fallen(self) -> bool:
        """Paused by a breach: nothing more is judged."""
        return self.paused_by == "breach"

    def needed(self, wanted: int) -> int:
        """Replicas of the candidate that have to serve for the present share; of a group's member, one."""
        return min(wanted, 1) if self.kind == "group" else wave_size(self.share_percent, wanted)


def split_of(canary: Canary) -> Split:
    """What the gateways are told. Going back, and before the first step, also what matches goes to stable."""
    plan, begun = canary.plan, canary.step >= 0 and canary.state not in ("rolled_back", "aborted")
    given = begun and not canary.is_fallen
    return Split(
        weight_permille=canary.weight_permille, match=plan.match if given else None,
        sticky=plan.sticky, subject=canary.id,
    )  # fmt: skip


def noted(canary: Canary, at: datetime, reason: str, message: str) -> Canary:
    """With a line in the journal, which is also what it says of itself."""
    line = Note(at=at, reason=reason, message=message, weight_permille=canary.weight_permille)
    return replace(canary, reason=reason, message=message, journal=(*canary.journal, line)[-KEEP_NOTES:])


def weighted(permille: int) -> str:
    """E.g. `0.5 %`."""
    return f"{permille / 10:g} %"


def told(canary: Canary) -> str:
    """What the service's status says of it; changes only with a decision."""
    what = f"revision {canary.candidate_revision}" if canary.kind == "service" else canary.candidate
    steps = canary.plan.steps_permille
    match canary.state:
        case "starting":
            return f"canary: replicas of {what} come up"
        case "baseline":
            return "canary: what is stable is measured before the first step"
        case "ramping":
            stays = "; it stays there, the time limit is over" if canary.reason == TIME_LIMIT else ""
            return f"canary at {weighted(canary.weight_permille)}: step {canary.step + 1} of {len(steps)}{stays}"
        case "promoting":
            return f"canary at {weighted(canary.weight_permille)}: {what} takes over"
        case "paused":
            return f"canary paused at {weighted(canary.weight_permille)}: {canary.message}"
        case _:
            return f"canary {canary.state.replace('_', ' ')}: {canary.message}"
