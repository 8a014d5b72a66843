"""What control does when others tell facts, and the loop that writes a service's status.

A fact only wakes; the status is decided from the projections (decide/status.py) and written under a guard and a fence.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from easel_contracts.facts import Cause, Fact
from easel_control.decide.revisions import moves
from easel_control.decide.status import Status, is_present, status_of
from easel_control.model import ServiceRow
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.leases import Leases
from easel_kit.reconcile import Reconciler

ELSEWHERE_S = 5.0
"""Seconds after which a copy without the lease looks again whether it got it."""


class Handlers:
    """Fact handlers and the status loop of one workspace."""

    def __init__(self, workspace: str, store: Store, worlds: Worlds, leases: Leases, clock: Clock) -> None:
        self._workspace, self._store, self._worlds = workspace, store, worlds
        self._leases, self._clock = leases, clock
        self.reconciler = Reconciler("status", self.reconcile, clock, self._names)

    async def on_replica(self, fact: Fact) -> None:
        """A replica changed."""
        if await self._worlds.replicas.apply(fact):
            self.reconciler.wake(fact.key)

    async def on_route(self, fact: Fact) -> None:
        """The gateway took a route over, refused or removed one."""
        if await self._worlds.routes.apply(fact):
            self.reconciler.wake(fact.key)

    async def on_scale(self, fact: Fact) -> None:
        """The autoscaler decided."""
        if await self._worlds.scales.apply(fact):
            self.reconciler.wake(fact.key)

    async def reconcile(self, name: str) -> float | None:
        """Brings a service's status up to date. Raises Stale where someone wrote at the same time."""
        fence = self._leases.token_for(name)
        if fence is None:
            return ELSEWHERE_S
        row = await self._store.get(self._workspace, name)
        if row is None:
            return None
        world = await self._worlds.of(self._workspace, name)
        status = status_of(row, world)
        if status.gone:
            await self._remove(row, status, fence)
            return None
        started = any(is_present(row, r) for r in world.replicas)
        steps = moves(row, status, await self._store.revisions(row.workspace, name), started=started)
        after = _with(row, status)
        if after == row and not steps:
            return None
        async with self._store.database.transaction() as connection:
            for revision, state in steps:
                await self._store.revision_state(connection, revision, state)
            if after != row:
                after = replace(after, row_version=row.row_version + 1, updated_at=self._clock.now())
                await self._store.update(connection, after, fence)
                cause = Cause(actor="control", reason=after.reason, message=after.message)
                await self._store.tell(connection, after, "status_changed", cause)
        return 0.0

    async def _remove(self, row: ServiceRow, status: Status, fence: int) -> None:
        """Deletes the row; its fact is the last of this service."""
        last = replace(
            row, status="Deleted", reason="Deleted", message="nothing of it is left",
            row_version=row.row_version + 1, updated_at=self._clock.now(),
        )  # fmt: skip
        async with self._store.database.transaction() as connection:
            await self._store.remove(connection, last, fence)
            cause = Cause(actor="control", reason="Deleted", message="replicas and route are gone")
            await self._store.tell(connection, last, "deleted", cause)

    async def _names(self) -> Iterable[str]:
        return [name for workspace, name in await self._store.names() if workspace == self._workspace]


def _with(row: ServiceRow, status: Status) -> ServiceRow:
    return replace(
        row, status=status.status, reason=status.reason, message=status.message, total=status.total,
        running=status.running, settled=status.settled, phase_s=status.phase_s, observed_generation=row.generation,
    )  # fmt: skip
