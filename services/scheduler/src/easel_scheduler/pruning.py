"""What nobody needs any more is forgotten: replicas that ended a while ago, what revisions of past services ran."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from easel_contracts.facts import ServiceState
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
from easel_kit.projection import Projection
from easel_kit.telemetry import get_logger
from easel_scheduler.decide.pins import outlived
from easel_scheduler.pins import Pins
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store

PRUNE_S = 60.0

log = get_logger("pruning")


class Pruning:
    """Once a minute."""

    def __init__(self, store: Store, pins: Pins, services: Projection[ServiceState], settings: SchedulerSettings,
                 wake: Callable[[str, str], None]) -> None:  # fmt: skip
        self._store, self._pins, self._services, self._settings, self._wake = store, pins, services, settings, wake

    async def run(self, clock: Clock) -> None:
        """For ever."""
        while True:
            await clock.sleep(PRUNE_S)
            try:
                await self.replicas()
                await self.pins()
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("not pruned", error=repr(error))

    async def replicas(self) -> None:
        """Those that ended; their agents are told to clear away what is left of them."""
        for replica_id in await self._store.prune(self._settings.keep_ended, self._settings.keep_ended_days):
            self._wake("lives", replica_id)

    async def pins(self) -> None:
        """Of revisions that nobody can start any more."""
        pinned = await self._pins.revisions()
        living = {s.name: s for s in await self._services.all(self._settings.workspace)} if pinned else {}
        services = {
            p.service: living.get(p.service) or await self._services.get(p.service, self._settings.workspace)
            for p in pinned
        }
        if gone := outlived(pinned, services):
            await self._pins.forget(gone)
