"""Keeps groups in step with the services that name them, in the transaction in which a service is written.

Locks are taken in one order, so that no two changes wait for each other: the service's row, names, rows of groups (by
name).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from easel_contracts.errors import AlreadyExists, FieldError, InvalidInput
from easel_contracts.facts import GroupMember
from easel_contracts.ids import uuid7
from easel_control.audit import record
from easel_control.decide import groups
from easel_control.decide.groups import GroupChange
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.model import GroupRow, ServiceRow
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.grpc import Caller


class Memberships:
    """Who is in which group."""

    def __init__(self, store: GroupStore, tokens: GroupTokens, clock: Clock) -> None:
        self._store, self._tokens, self._clock = store, tokens, clock

    async def claim(self, connection: Connection, workspace: str, service: str, group: str) -> None:
        """Before a service is made, in a group or (empty) none: its name is its own. Raises AlreadyExists."""
        await self._store.hold_names(connection, workspace, {service, group} - {""})
        if await self._store.get(workspace, service, connection) is not None:
            raise AlreadyExists("NAME_TAKEN", f"there is a group {service}, and both are reached by their names",
                                "choose another name for the service")  # fmt: skip

    async def follow(
        self, connection: Connection, who: Caller, action: str, before: ServiceRow | None, after: ServiceRow
    ) -> None:
        """Has groups follow a service that was written: it left one, came to another, or both.

        Raises InvalidInput where the group has the name of a service.
        """
        was = before.group if before is not None else ""
        if was == after.group:
            return
        if after.group:
            await self._store.hold_names(connection, after.workspace, [after.group])
        for name in sorted({was, after.group} - {""}):
            group = await self._store.get(after.workspace, name, connection)
            if name == after.group:
                change = await self._joined(connection, group, after)
            else:
                assert group is not None, "a group is there as long as it has members"
                change = groups.left(group, after.name, self._clock.now())
            await self._store.write(connection, change, who.actor)
            await record_group(connection, who, action, group, change)

    async def _joined(self, connection: Connection, group: GroupRow | None, service: ServiceRow) -> GroupChange:
        now, workspace, name = self._clock.now(), service.workspace, service.group
        if group is not None:
            return groups.joined(group, service.name, now)
        if await self._store.is_service(connection, workspace, name):
            message = f"{name} is the name of a service, and both are reached by their names"
            raise InvalidInput(f"the service cannot join this group: {message}", (FieldError(
                path="metadata.group", code="NAME_TAKEN", message=message, hint="choose another name for the group"),
            ))  # fmt: skip
        return groups.created(
            service.name, workspace=workspace, name=name, uid=uuid7(), now=now,
            token_sealed=self._tokens.made(workspace, name), past=await self._store.past(connection, workspace, name),
        )  # fmt: skip

    async def members(self, rows: Sequence[ServiceRow], connection: Connection | None = None) -> dict[str, GroupMember]:
        """What services do in their groups, by service; who is in none is left out."""
        names = sorted({row.group for row in rows if row.group})
        if not names:
            return {}
        found = await self._store.some(rows[0].workspace, names, connection)
        return {m.service: m for group in found for m in group.members}


async def record_group(
    connection: Connection, who: Caller, action: str, before: GroupRow | None, change: GroupChange
) -> None:
    """Writes who changed a group, from where, in the transaction of the change."""
    after = None if change.verb == "deleted" else shown(change.row)
    await record(connection, who, change.row.workspace, action, f"group/{change.row.name}",
                 None if before is None else shown(before), after)  # fmt: skip


def shown(row: GroupRow) -> dict[str, Any]:
    """What the log keeps of a group."""
    return {
        "generation": row.generation,
        "traffic_mode": row.mode,
        "members": [{"service": m.service, "traffic_state": m.state, "weight": m.weight} for m in row.members],
        "rate_limit": row.gateway.rate_limit_qps,
        "concurrency_limit": row.gateway.concurrency_limit,
        "token_version": row.token_version,
        "canary": "" if row.split is None else f"{row.candidate} at {row.split.weight_permille / 10:g} %",
    }
