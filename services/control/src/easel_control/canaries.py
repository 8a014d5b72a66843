"""The loop of canaries: once a second each that is on is looked at, decided, and written with what it was decided from.

Deciding is in decide/canary_steps.py. The canary and its service or group are written in one transaction, under their
guards and the fence of the name's lease, so that a copy that goes down leaves nothing half done, and another goes on
from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from easel_control.canary_groups import GroupCanaries, SeenGroup
from easel_control.canary_services import SeenService, ServiceCanaries
from easel_control.canary_sources import CanarySources
from easel_control.canary_store import CanaryStore
from easel_control.decide.canary import Canary
from easel_control.decide.canary_seconds import looked
from easel_control.decide.canary_steps import Move, asks_compared, next_step
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
        self, workspace: str, canaries: CanaryStore, services: ServiceCanaries, groups: GroupCanaries,
        sources: CanarySources, leases: Leases, clock: Clock, wake: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._workspace, self._canaries, self._services, self._groups = workspace, canaries, services, groups
        self._sources, self._leases = sources, leases
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
        reading, no_counts = await self._sources.counts(canary)
        seen = await self._seen(canary)
        sight = replace(seen.sight, no_counts=no_counts)
        if asks_compared(canary):
            verdict, said = await self._sources.compared(canary)
            sight = replace(sight, compared=verdict, compared_said=said)
        after = looked(canary, reading, sight.realised, sight.serving, sight.now)
        move = next_step(after, sight) or Move(canary=after)
        if move.act != "note" or move.canary != canary:
            await self._write(canary, seen, move, fence)
        return LOOK_S if move.canary.is_on else None

    async def _seen(self, canary: Canary) -> SeenService | SeenGroup:
        return await (self._services.seen(canary) if canary.kind == "service" else self._groups.seen(canary))

    async def _write(self, before: Canary, seen: SeenService | SeenGroup, move: Move, fence: int) -> None:
        canary = replace(move.canary, row_version=before.row_version + 1)
        async with self._canaries.database.transaction() as connection:
            if move.act not in ("note", "end"):
                await self._carry_out(connection, seen, move, fence)
            await self._canaries.update(connection, canary, fence)
        if move.act != "note":
            log.info("canary", canary=canary.id, name=canary.name, state=canary.state, did=move.act,
                     weight_permille=canary.weight_permille, reason=canary.reason, message=canary.message)  # fmt: skip
            self._wake(canary.name)

    async def _carry_out(self, connection: Connection, seen: SeenService | SeenGroup, move: Move, fence: int) -> None:
        if isinstance(seen, SeenService):
            await self._services.carry_out(connection, seen, move, fence)
        else:
            await self._groups.carry_out(connection, seen, move, fence)

    async def _names(self) -> Iterable[str]:
        return await self._canaries.names(self._workspace)
