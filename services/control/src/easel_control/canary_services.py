"""What a canary of a service sees, and how its decisions are carried out: on the rollout of the service."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.facts import Cause
from easel_control.admission import Admission
from easel_control.decide.canary import Canary
from easel_control.decide.canary_rollout import goes_on, is_of, promoted
from easel_control.decide.canary_steps import Move, Sight
from easel_control.decide.releases import taken_back
from easel_control.decide.view import view_of
from easel_control.model import RolloutRow, ServiceRow
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection


class SeenService(Struct, frozen=True):
    """What was seen, and the row it was seen on."""

    sight: Sight
    row: ServiceRow | None


class ServiceCanaries:
    """Canaries between revisions of a service."""

    def __init__(self, services: Store, worlds: Worlds, admission: Admission, clock: Clock) -> None:
        self._services, self._worlds, self._admission, self._clock = services, worlds, admission, clock

    async def seen(self, canary: Canary) -> SeenService:
        """Its service now."""
        row = await self._services.get(canary.workspace, canary.name)
        world = await self._worlds.of(canary.workspace, canary.name)
        if row is None or row.wanted == "deleted" or not is_of(row, canary):
            there: Literal["deleted", "gone"] = "gone" if row is not None and row.wanted != "deleted" else "deleted"
            return SeenService(Sight(now=world.now, there=there, wanted=0, serving=0, realised=None), row)
        assert row.rollout is not None
        view = view_of(row, world)
        by_itself = row.rollout.state == "paused" and row.rollout.reason != "PausedByUser"
        return SeenService(Sight(
            now=world.now, there="running" if row.wanted == "running" else "stopped", wanted=view.total,
            serving=len(view.serving), realised=world.route.split_permille if world.route is not None else None,
            replicas_fail=row.rollout.message if by_itself else "",
            no_room=view.no_room.message if view.no_room is not None else "",
        ), row)  # fmt: skip

    async def carry_out(self, connection: Connection, seen: SeenService, move: Move, fence: int) -> None:
        """Writes and tells what a move makes of the service; raises Stale where someone was first."""
        row = seen.row
        assert row is not None
        match move.act:
            case "split":
                await self._roll(connection, row, goes_on(row, move.canary), move.canary, fence)
            case "promote":
                await self._roll(connection, row, promoted(row), move.canary, fence)
            case "back":
                await self._take_back(connection, row, move.canary, fence)

    async def _roll(
        self, connection: Connection, row: ServiceRow, rollout: RolloutRow, canary: Canary, fence: int
    ) -> None:
        if rollout == row.rollout:
            return
        after = replace(row, rollout=rollout, row_version=row.row_version + 1, updated_at=self._clock.now())
        await self._services.update(connection, after, fence)
        await self._services.tell(connection, after, "rollout_changed", _cause(canary))

    async def _take_back(self, connection: Connection, row: ServiceRow, canary: Canary, fence: int) -> None:
        assert row.rollout is not None
        stable = await self._services.revision(row.workspace, row.name, row.rollout.stable.number, connection)
        assert stable is not None, "the stable revision of a rollout is never pruned"
        laid = self._admission.laid(row, stable)
        change = taken_back(row, laid, canary.reason, canary.message, self._clock.now())
        await self._services.update(connection, change.row, fence)
        if change.given_up:
            await self._services.give_up(connection, row.workspace, row.name, change.given_up)
        await self._services.tell(connection, change.row, change.verb, _cause(canary))


def _cause(canary: Canary) -> Cause:
    return Cause(actor="control", reason=canary.reason, message=canary.message)
