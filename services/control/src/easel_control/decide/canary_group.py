"""A canary between members of a group: how one begins, and what a decision makes of the group's row. Pure.

The members' replicas are their own; only the group's requests move. While it is on, `GroupRow.split` gives the
candidate its weight, and the others share the rest as ever. Promoted, the candidate has all of the weight.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from easel_contracts.errors import Conflict, FieldError, InvalidInput
from easel_contracts.facts import GroupMember
from easel_control.decide.canary import Canary, noted, split_of
from easel_control.decide.canary_plan import Plan
from easel_control.decide.evidence import begin
from easel_control.decide.groups import MAX_WEIGHT, GroupChange, member_of
from easel_control.model import GroupRow


def begun(
    row: GroupRow, candidate: str, plan: Plan, identity: str, actor: str, now: datetime
) -> tuple[GroupChange, Canary]:
    """The group with a canary of a member. Raises InvalidInput, Conflict."""
    _refuse(row, candidate, plan)
    canary = Canary(
        id=identity, workspace=row.workspace, name=row.name, kind="group", uid=row.uid, plan=plan, reason="",
        message="", candidate=candidate, share_permille=plan.steps_permille[0], step_at=now,
        evidence=begin(plan.limits), started_at=now,
    )  # fmt: skip
    canary = noted(canary, now, "Started", f"{actor} started it: {candidate} beside the other members")
    return goes_on(row, canary, now), canary


def goes_on(row: GroupRow, canary: Canary, now: datetime) -> GroupChange:
    """The group as the canary wants it."""
    after = _raised(row, now, split=split_of(canary), candidate=canary.candidate)
    return GroupChange(row=after, verb="updated", reason=canary.reason, message=canary.message)


def without(row: GroupRow, canary: Canary, now: datetime) -> GroupChange:
    """The group as it was before."""
    after = _raised(row, now, split=None, candidate="")
    return GroupChange(row=after, verb="updated", reason=canary.reason, message=canary.message)


def promoted(row: GroupRow, canary: Canary, now: datetime) -> GroupChange:
    """All of the weight is the candidate's; the others stay members, with none."""
    members = tuple(_promoted(member, canary.candidate) for member in row.members)
    after = _raised(row, now, split=None, candidate="", mode="customized", members=members)
    return GroupChange(row=after, verb="updated", reason=canary.reason, message=canary.message)


def is_of(row: GroupRow | None, canary: Canary) -> bool:
    """Whether the split of the group is the canary's."""
    return row is not None and row.uid == canary.uid and row.split is not None and row.split.subject == canary.id


def _promoted(member: GroupMember, candidate: str) -> GroupMember:
    if member.service == candidate:
        return replace(member, state="grouping", weight=MAX_WEIGHT)
    return replace(member, weight=0) if member.state == "grouping" else member


def _refuse(row: GroupRow, candidate: str, plan: Plan) -> None:
    if member_of(row, candidate) is None:
        names = ", ".join(member.service for member in row.members)
        raise _wrong("candidate", f"{candidate or 'nothing'} is no member of {row.name}; {names} are")
    if plan.mirror_gate:
        raise _wrong("plan.mirror_gate", "requests of a group are not mirrored; those of a service are")
    if not any(m.state == "grouping" and m.service != candidate and m.weight for m in row.members):
        raise Conflict("NOTHING_TO_COMPARE", f"no other member of {row.name} takes part in its traffic",
                       f"`easel release {candidate}` gives it all of the group's requests")  # fmt: skip


def _wrong(path: str, message: str) -> InvalidInput:
    return InvalidInput(
        f"the canary cannot be started: {path}: {message}",
        (FieldError(path=path, code="OUT_OF_RANGE", message=message),),
    )


def _raised(row: GroupRow, now: datetime, **changes: object) -> GroupRow:
    return replace(row, row_version=row.row_version + 1, generation=row.generation + 1, updated_at=now, **changes)
