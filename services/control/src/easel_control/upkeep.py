"""Every ten minutes: what grows in control's schema and home is cut back, and unused services are looked at."""

from __future__ import annotations

import asyncio

import asyncpg

from easel_control.expiry import Expiry
from easel_control.group_store import GroupStore
from easel_control.settings import Settings
from easel_control.store import Store
from easel_control.uploads import CodeStore
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
from easel_kit.telemetry import get_logger

EVERY_S = 600.0

log = get_logger("upkeep")


class Upkeep:
    """Cuts back what is old."""

    def __init__(
        self, settings: Settings, store: Store, groups: GroupStore, code: CodeStore, expiry: Expiry, clock: Clock
    ) -> None:
        self._settings, self._store, self._groups, self._code = settings, store, groups, code
        self._expiry, self._clock = expiry, clock

    async def run(self) -> None:
        """For ever; a store that is away is tried again at the next round."""
        while True:
            await self._clock.sleep(EVERY_S)
            try:
                await self.once()
            except (*UNREACHABLE, asyncpg.PostgresError, OSError) as error:
                log.warning("not pruned", error=repr(error))

    async def once(self) -> None:
        """One round."""
        await self._expiry.once()
        await self._store.prune(self._settings.idempotency_keep_h)
        await self._groups.prune()
        in_use = await self._store.code_in_use()
        removed = await asyncio.to_thread(self._code.collect, in_use, self._settings.code_keep_h * 3600)
        if removed:
            log.info("archives removed", count=removed)
