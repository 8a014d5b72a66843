"""What becomes of a group: a member comes, leaves, takes part or no more; traffic mode and limits change. Pure.

`GroupRow` in, `GroupChange` out; None where nothing changes. A group has members as long as it is there: what takes the
last one away is its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, cast

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import Conflict, FieldError, InvalidInput, NotFound
from easel_contracts.facts import GroupMember
from easel_contracts.shares import shares
from easel_contracts.spec import GatewayPolicy
from easel_control.decide.keys_gateway import MAX_AT_A_TIME, MAX_RATE
from easel_control.model import GroupRow, ServiceRow

MODES = ("auto", "customized")
STATES = ("grouping", "standalone")
BY_REPLICAS = -1
MAX_WEIGHT = 1000


class GroupChange(Struct, frozen=True, kw_only=True):
    """A row to write and what to tell of it."""

    row: GroupRow
    verb: Literal["created", "updated", "deleted"]
    reason: str
    message: str


class Standing(Struct, frozen=True, kw_only=True):
    """A member of a group as it is now."""

    member: GroupMember
    share: float
    """Its part of the group's requests, 0 to 1."""
    in_traffic: int
    """Replicas that take traffic."""
    running: int
    status: str


def created(
    service: str, *, workspace: str, name: str, uid: str, token_sealed: bytes, past: tuple[int, int], now: datetime
) -> GroupChange:
    """A new group with its first member. `past`: where (generation, row_version) of an earlier one of its name was."""
    row = GroupRow(
        workspace=workspace, name=name, uid=uid, row_version=past[1] + 1, generation=past[0] + 1,
        members=(GroupMember(service=service),), token_sealed=token_sealed, created_at=now, updated_at=now,
    )  # fmt: skip
    return GroupChange(row=row, verb="created", reason="Created", message=f"{service} is its first member")


def joined(before: GroupRow, service: str, now: datetime) -> GroupChange:
    """One more member. It gets none of the group's requests before it is released."""
    row = _raised(before, now, members=_sorted((*before.members, GroupMember(service=service))))
    message = f"{service} is a member; it takes no part in the group's traffic until it is released"
    return GroupChange(row=row, verb="updated", reason="MemberJoined", message=message)


def left(before: GroupRow, service: str, now: datetime) -> GroupChange:
    """Without a member; without any, it is the group's end."""
    members = tuple(m for m in before.members if m.service != service)
    row = _raised(before, now, members=members)
    if members:
        return GroupChange(row=row, verb="updated", reason="MemberLeft", message=f"{service} is no member any more")
    return GroupChange(row=row, verb="deleted", reason="LastMemberLeft", message=f"{service}, its last member, left")


def updated(
    before: GroupRow, mode: str, rate_limit: int | None, concurrency_limit: int | None, now: datetime
) -> GroupChange | None:
    """Another traffic mode, other limits; empty and None: as they are. Raises InvalidInput."""
    errors = []
    if mode and mode not in MODES:
        errors.append(_wrong("traffic_mode", f"{mode!r}", " or ".join(MODES)))
    for name, value, most in (
        ("rate_limit", rate_limit, MAX_RATE), ("concurrency_limit", concurrency_limit, MAX_AT_A_TIME),
    ):  # fmt: skip
        if value is not None and not 0 <= value <= most:
            errors.append(_wrong(name, str(value), f"0 (no limit) to {most}"))
    refuse(errors)
    gateway = before.gateway
    gateway = replace(
        gateway, rate_limit_qps=gateway.rate_limit_qps if rate_limit is None else rate_limit,
        concurrency_limit=gateway.concurrency_limit if concurrency_limit is None else concurrency_limit,
    )  # fmt: skip
    kind = cast("Literal['auto', 'customized']", mode or before.mode)
    if kind != before.mode:
        _refuse_under_canary(before)
    if (kind, gateway) == (before.mode, before.gateway):
        return None
    said = [f"traffic mode {kind}, was {before.mode}"] if kind != before.mode else []
    said += [limits_told(gateway)] if gateway != before.gateway else []
    row = _raised(before, now, mode=kind, gateway=gateway)
    return GroupChange(row=row, verb="updated", reason="Updated", message="; ".join(said))


def released(before: GroupRow, service: str, state: str, weight: int | None, now: datetime) -> GroupChange | None:
    """A member takes part, or no more; a fixed weight makes the group customized. Empty and None: as they are, but who
    is given a weight takes part. Raises InvalidInput."""
    errors = []
    if state and state not in STATES:
        errors.append(_wrong("traffic_state", f"{state!r}", " or ".join(STATES)))
    if weight is not None and not BY_REPLICAS <= weight <= MAX_WEIGHT:
        errors.append(_wrong("weight", str(weight), f"{BY_REPLICAS} (by replicas) to {MAX_WEIGHT}"))
    if not state and weight is None:
        errors.append(_wrong("traffic_state", "nothing", " or ".join(STATES) + ", or a weight"))
    refuse(errors)
    member = member_of(before, service)
    assert member is not None, "a service and its group are written in one transaction"
    kind = cast("Literal['grouping', 'standalone']", state or "grouping")
    after = replace(member, state=kind, weight=member.weight if weight is None else weight)
    mode = "customized" if weight is not None and weight != BY_REPLICAS else before.mode
    if (after, mode) == (member, before.mode):
        return None
    _refuse_under_canary(before)
    others = tuple(m for m in before.members if m is not member)
    row = _raised(before, now, mode=mode, members=_sorted((*others, after)))
    said = f"{service} takes part" if kind == "grouping" else f"{service} is standalone"
    said += f" with weight {after.weight}" if weight is not None else ""
    said += f"; traffic mode {mode}, was {before.mode}" if mode != before.mode else ""
    return GroupChange(row=row, verb="updated", reason="Released", message=said)


def member_of(group: GroupRow | None, service: str) -> GroupMember | None:
    """The service as a member."""
    return None if group is None else next((m for m in group.members if m.service == service), None)


def standings(row: GroupRow, services: Mapping[str, ServiceRow], in_traffic: Mapping[str, int]) -> tuple[Standing, ...]:
    """The members as they are now. `in_traffic`: service → its replicas that take traffic."""
    parts = shares(row.mode, row.members, in_traffic)
    return tuple(
        Standing(
            member=m, share=parts[m.service], in_traffic=in_traffic.get(m.service, 0),
            running=services[m.service].running if m.service in services else 0,
            status=services[m.service].status if m.service in services else "",
        )
        for m in row.members
    )  # fmt: skip


def limits_told(gateway: GatewayPolicy) -> str:
    """A group's limits in words."""
    rate, at_a_time = gateway.rate_limit_qps, gateway.concurrency_limit
    first = f"at most {rate} requests per second" if rate else "no limit of requests per second"
    return f"{first}, " + (f"at most {at_a_time} at a time" if at_a_time else "none of requests at a time")


def no_group(service: str) -> Conflict:
    """The error for who would release a service that is in no group."""
    return Conflict("NO_GROUP", f"{service} belongs to no group, so it has no part in the traffic of one",
                    f"`easel modify {service} -Dmetadata.group=GROUP` has it join or make one")  # fmt: skip


def unknown(name: str) -> NotFound:
    """The error for a group that is not there."""
    return NotFound("NO_SUCH_GROUP", f"there is no group {name}",
                    "`easel group ls` lists all; a group comes with its first member: metadata.group")  # fmt: skip


def refuse(errors: list[FieldError]) -> None:
    """Raises InvalidInput where there are any."""
    if errors:
        raise InvalidInput("; ".join(f"{e.path}: {e.message}" for e in errors), tuple(errors))


def _refuse_under_canary(before: GroupRow) -> None:
    """Raises Conflict for a change of how requests are shared while a canary shares them."""
    if before.split is not None:
        name = before.name
        raise Conflict("CANARY_ON", f"a canary of {name} is on, with {before.candidate} as its candidate; how requests "
                       "are shared is not changed meanwhile",
                       f"`easel canary promote {name}` or `easel canary abort {name}` first")  # fmt: skip


def _wrong(path: str, given: str, allowed: str) -> FieldError:
    return FieldError(path=path, code="OUT_OF_RANGE", message=f"{given} is not allowed; {allowed} is")


def _raised(row: GroupRow, now: datetime, **changes: object) -> GroupRow:
    return replace(row, row_version=row.row_version + 1, generation=row.generation + 1, updated_at=now, **changes)


def _sorted(members: tuple[GroupMember, ...]) -> tuple[GroupMember, ...]:
    return tuple(sorted(members, key=lambda m: m.service))
