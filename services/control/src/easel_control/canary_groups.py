"""What a canary between members of a group sees, and how its decisions are carried out: on the group's split."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from easel_control.decide.canary import Canary
from easel_control.decide.canary_group import goes_on, is_of, promoted, without
from easel_control.decide.canary_steps import Move, Sight
from easel_control.decide.groups import member_of
from easel_control.decide.view import view_of
from easel_control.group_store import GroupStore
from easel_control.model import GroupRow
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection


class SeenGroup(Struct, frozen=True):
    """What was seen, and the row it was seen on."""

    sight: Sight
    row: GroupRow | None


class GroupCanaries:
    """Canaries between members of a group."""

    def __init__(self, groups: GroupStore, services: Store, worlds: Worlds, clock: Clock) -> None:
        self._groups, self._services, self._worlds, self._clock = groups, services, worlds, clock

    async def seen(self, canary: Canary) -> SeenGroup:
        """Its group and candidate now. A candidate that was stopped, or left the group, ends it."""
        row = await self._groups.get(canary.workspace, canary.name)
        now = self._clock.now()
        if row is None or not is_of(row, canary):
            there: Literal["deleted", "gone"] = "deleted" if row is None else "gone"
            return SeenGroup(Sight(now=now, there=there, wanted=0, serving=0, realised=None), row)
        route = await self._worlds.routes.get(canary.name, canary.workspace)
        realised = route.split_permille if route is not None else None
        service = await self._services.get(canary.workspace, canary.candidate)
        is_there = service is not None and service.wanted == "running" and member_of(row, service.name) is not None
        if service is None or not is_there:
            return SeenGroup(Sight(now=now, there="stopped", wanted=0, serving=0, realised=realised), row)
        world = await self._worlds.of(canary.workspace, canary.candidate)
        view = view_of(service, world)
        in_traffic = len(world.route.replicas) if world.route is not None else 0
        failed = service.status == "Failed"
        return SeenGroup(Sight(
            now=now, wanted=view.total, serving=in_traffic, realised=realised,
            replicas_fail=f"{service.name} is Failed: {service.message}" if failed else "",
            no_room=view.no_room.message if view.no_room is not None else "",
        ), row)  # fmt: skip

    async def carry_out(self, connection: Connection, seen: SeenGroup, move: Move, fence: int) -> None:
        """Writes and tells what a move makes of the group; raises Stale where someone was first. The fence is that of
        the canary, which is written in the same transaction."""
        row, now = seen.row, self._clock.now()
        assert row is not None
        match move.act:
            case "split":
                change = goes_on(row, move.canary, now)
                if (change.row.split, change.row.candidate) != (row.split, row.candidate):
                    await self._groups.write(connection, change, "control")
            case "promote":
                await self._groups.write(connection, promoted(row, move.canary, now), "control")
            case "back":
                await self._groups.write(connection, without(row, move.canary, now), "control")
