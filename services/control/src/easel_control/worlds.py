"""What others have told about a service, gathered from control's projections."""

from __future__ import annotations

from easel_contracts.facts import ReplicaState, RouteState, ScaleState
from easel_control.decide.view import World
from easel_control.store import Store
from easel_kit.clock import Clock
from easel_kit.projection import Projection


class Worlds:
    """Loads one service's world."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.replicas = Projection(store.database, "replica", ReplicaState)
        self.routes = Projection(store.database, "route", RouteState)
        self.scales = Projection(store.database, "scale", ScaleState)

    async def of(self, workspace: str, name: str) -> World:
        """The newest that is known."""
        return World(
            replicas=tuple(await self.replicas.by_key(name, workspace)),
            failed=tuple(await self._store.failed_replicas(workspace, name)),
            route=await self.routes.get(name, workspace),
            scale=await self.scales.get(name, workspace),
            now=self._clock.now(),
        )
