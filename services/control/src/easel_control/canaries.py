"""The loop of canaries: once a second each that is on is looked at, decided, and written with what it was decided from.

Deciding is in decide/canary_steps.py. Canary and service are written in one transaction, under their guards and the
fence of the service's lease, so that a copy that goes down leaves nothing half done, and another goes on from the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from easel_contracts.facts import Cause
from easel_control.admission import Admission
from easel_control.canary_sources import CanarySources
from easel_control.canary_store import CanaryStore
from easel_control.decide.canary import Canary
from easel_control.decide.canary_rollout import goes_on, is_of, promoted
from easel_control.decide.canary_seconds import looked
from easel_control.decide.canary_steps import Move, Sight, asks_compared, next_step
from easel_control.decide.releases import taken_back
from easel_control.decide.view import view_of
from easel_control.model import RolloutRow, ServiceRow
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.leases import Leases
from easel_kit.reconcile import Reconciler
from easel_kit.telemetry import get_logger

LOOK_S = 1.0
ELSEWHERE_S = 5.0
"""Seconds after which a copy without the lease looks again whether it got it."""
RESYNC_S = 5.0

log = get_logger("canaries")


class Canaries:
    """Reconciles the canaries of one workspace; the key is the name. `wake` has a service's status looked at."""

    def __init__(
        self, workspace: str, canaries: CanaryStore, services: Store, worlds: Worlds, admission: Admission,
        sources: CanarySources, leases: Leases, clock: Clock, wake: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._workspace, self._canaries, self._services, self._worlds = workspace, canaries, services, worlds
        self._admission, self._sources, self._leases, self._clock = admission, sources, leases, clock
        self._wake = wake
        self.reconciler = Reconciler("canaries", self.reconcile, clock, self._names, resync_s=RESYNC_S)

    async def reconcile(self, name: str) -> float | None:
        """One look. Raises Stale where someone wrote at the same time."""
        fence = self._leases.token_for(name)
        if fence is None:
            return ELSEWHERE_S
        canary = await self._canaries.on(self._workspace, name)
        if canary is None:
            return None
        row = await self._services.get(self._workspace, name)
        reading, no_counts = await self._sources.counts(canary)
        sight = replace(await self._sight(canary, row), no_counts=no_counts)
        seen = looked(canary, reading, sight.realised, sight.serving, sight.now)
        move = next_step(seen, sight) or Move(canary=seen)
        if move.act != "note" or move.canary != canary:
            await self._write(canary, row, move, fence)
        return LOOK_S if move.canary.is_on else None

    async def _sight(self, canary: Canary, row: ServiceRow | None) -> Sight:
        world = await self._worlds.of(self._workspace, canary.name)
        if row is None or row.wanted == "deleted" or not is_of(row, canary):
            is_deleted = row is None or row.wanted == "deleted"
            return Sight(now=world.now, there="deleted" if is_deleted else "gone", wanted=0, serving=0, realised=None)
        assert row.rollout is not None
        view = view_of(row, world)
        by_itself = row.rollout.state == "paused" and row.rollout.reason != "PausedByUser"
        verdict, said = await self._sources.compared(canary) if asks_compared(canary) else ("", "")
        return Sight(
            now=world.now, there="running" if row.wanted == "running" else "stopped", wanted=view.total,
            serving=len(view.serving), realised=world.route.split_permille if world.route is not None else None,
            replicas_fail=row.rollout.message if by_itself else "",
            no_room=view.no_room.message if view.no_room is not None else "", compared=verdict, compared_said=said,
        )  # fmt: skip

    async def _write(self, before: Canary, row: ServiceRow | None, move: Move, fence: int) -> None:
        canary = replace(move.canary, row_version=before.row_version + 1)
        async with self._canaries.database.transaction() as connection:
            if row is not None and move.act != "note":
                await self._carry_out(connection, row, move, fence)
            await self._canaries.update(connection, canary, fence)
        if move.act != "note":
            log.info("canary", canary=canary.id, name=canary.name, state=canary.state, did=move.act,
                     weight_permille=canary.weight_permille, reason=canary.reason, message=canary.message)  # fmt: skip
            self._wake(canary.name)

    async def _carry_out(self, connection: Connection, row: ServiceRow, move: Move, fence: int) -> None:
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

    async def _names(self) -> Iterable[str]:
        return await self._canaries.names(self._workspace)


def _cause(canary: Canary) -> Cause:
    return Cause(actor="control", reason=canary.reason, message=canary.message)
