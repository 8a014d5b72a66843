"""A canary and the rollout of its service: how one begins, and what a decision makes of the row. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_control.decide.canary import Canary, noted, split_of, told
from easel_control.decide.canary_plan import Plan
from easel_control.decide.evidence import begin
from easel_control.decide.mutation import Change, moved, raised, refuse_deleting
from easel_control.decide.rollout import resumed
from easel_control.model import RolloutRow, ServiceRow

MAKERS = "Canaries."
"""Beginning of the actions that may change a rollout while a canary is on."""


def begun(row: ServiceRow, plan: Plan, identity: str, actor: str, now: datetime) -> tuple[ServiceRow, Canary]:
    """The row with a canary of the rollout that is on, and the canary. Raises Conflict where there is none."""
    if row.rollout is None:
        raise nothing_to_compare(row)
    canary = Canary(
        id=identity, workspace=row.workspace, name=row.name, uid=row.uid, plan=plan, reason="", message="",
        stable_revision=row.rollout.stable.number, candidate_revision=row.revision.number,
        restart_nonce=row.revision.restart_nonce, share_permille=plan.steps_permille[0], step_at=now,
        evidence=begin(plan.limits), started_at=now,
    )  # fmt: skip
    said = f"{actor} started it: revision {canary.candidate_revision} beside {canary.stable_revision}"
    canary = noted(canary, now, "Started", said)
    rollout = replace(row.rollout, took_over=False, progress_at=None, served_at=None, most_serving=0)
    return moved(replace(row, rollout=_split(rollout, canary)), "Updating", "Canary", told(canary)), canary


def adopted(before: ServiceRow, now: datetime) -> Change:
    """The rollout that is on, for a canary to go on with. Raises Conflict where none is, or it cannot be."""
    refuse_deleting(before)
    if before.rollout is None:
        raise nothing_to_compare(before)
    if before.rollout.state == "paused":
        raise Conflict("ROLLOUT_PAUSED", f"the rollout of {before.name} is paused: {before.rollout.message}",
                       f"`easel rollout {before.name} resume` first, or `revert` it")  # fmt: skip
    if before.rollout.took_over:
        raise Conflict("TAKEN_OVER", f"revision {before.revision.number} of {before.name} has taken over already",
                       f"`easel version {before.name} {before.rollout.stable.number}` goes back")  # fmt: skip
    message = f"a canary goes on with the rollout of revision {before.revision.number}"
    return Change(row=raised(before, now), verb="rollout_changed", reason="CanaryStarted", message=message)


def goes_on(row: ServiceRow, canary: Canary, failing: tuple[str, ...] = ()) -> RolloutRow:
    """The rollout as the canary wants it. `failing`: replicas whose failures are forgiven, where somebody has it go
    on."""
    assert row.rollout is not None
    rollout = row.rollout
    if canary.state in ("starting", "ramping", "promoting"):
        rollout = resumed(rollout, failing) or rollout
    return _split(rollout, canary)


def promoted(row: ServiceRow) -> RolloutRow:
    """The rollout without its canary: every replica may be of the new revision, as in a last wave."""
    assert row.rollout is not None
    return replace(
        row.rollout, split=None, keep_stable=False, canary="", share_percent=100, served_at=None, progress_at=None,
        most_serving=0,
    )  # fmt: skip


def is_of(row: ServiceRow | None, canary: Canary) -> bool:
    """Whether the rollout that is on is the canary's."""
    if row is None or row.uid != canary.uid or row.rollout is None or row.rollout.split is None:
        return False
    return row.rollout.split.subject == canary.id


def refuse_under_canary(before: ServiceRow, change: Change, action: str) -> None:
    """Raises Conflict for a change of what runs while a canary is on, unless it is the canary's own. Stop and delete
    end the canary; scaling and settings leave it as it is."""
    rollout = before.rollout
    if rollout is None or rollout.split is None or action.startswith(MAKERS):
        return
    runs_other = change.row.revision != before.revision or change.verb in ("restarted", "rollout_changed")
    if not runs_other:
        return
    name = before.name
    raise Conflict(
        "CANARY_ON",
        f"a canary of {name} is on: revision {before.revision.number} beside {rollout.stable.number}; what runs is not "
        "changed meanwhile",
        f"`easel canary promote {name}` or `easel canary abort {name}` first; `easel canary desc {name}` shows it",
    )


def _split(rollout: RolloutRow, canary: Canary) -> RolloutRow:
    after = replace(
        rollout, split=split_of(canary), keep_stable=canary.plan.keep_stable, share_percent=canary.share_percent,
        canary=told(canary),
    )  # fmt: skip
    if after.share_percent == rollout.share_percent:
        return after
    return replace(after, served_at=None, progress_at=None, most_serving=0)


def nothing_to_compare(row: ServiceRow) -> Conflict:
    """The error where nothing takes the place of anything that has served."""
    if row.wanted != "running":
        return Conflict("STOPPED", f"{row.name} is {row.wanted}", f"`easel start {row.name}` starts it")
    if not row.proven:
        return Conflict("NOTHING_TO_COMPARE", f"no revision of {row.name} has served yet, so there is nothing to "
                        "compare with", f"deploy without a canary: `easel modify {row.name}`")  # fmt: skip
    return Conflict(
        "NOTHING_TO_COMPARE", f"{row.name} runs revision {row.revision.number} and nothing else is to take over",
        "give what the new revision changes (-s FILE, -Dpath=value), or --revision N",
    )  # fmt: skip
