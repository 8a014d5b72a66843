"""Writes each ended minute of the rings to the database, and fills the rings from it at the start."""

from __future__ import annotations

import asyncpg

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
from easel_kit.telemetry import get_logger
from easel_monitor.decide.cell import Cell
from easel_monitor.inventory import Inventory, Key
from easel_monitor.recorder import Recorder
from easel_monitor.store import Rollups

MINUTE_S = 60
HOUR_S = 3600

log = get_logger("rollups")


class Keeper:
    """The hour's way to the database and back."""

    def __init__(self, recorder: Recorder, inventory: Inventory, store: Rollups, clock: Clock) -> None:
        self._recorder, self._inventory, self._store, self._clock = recorder, inventory, store, clock
        self._saved_to_s = 0

    async def load(self) -> None:
        """Fills the rings of services that exist."""
        now_s = int(self._clock.now().timestamp())
        for key, cells in await self._store.load(now_s - HOUR_S - MINUTE_S):
            if self._inventory.exists(key):
                tens = self._recorder.history(key).tens
                for cell in cells:
                    tens.put(cell)
        self._saved_to_s = now_s - now_s % MINUTE_S

    async def run(self) -> None:
        """Saves every minute; while the database is away, the rings keep what is due."""
        while True:
            now = self._clock.now().timestamp()
            await self._clock.sleep(MINUTE_S - now % MINUTE_S + 1.0)
            await self.save(whole_minutes=True)

    async def save(self, *, whole_minutes: bool = False) -> None:
        """Writes what is not saved yet, the running minute too unless told otherwise."""
        now_s = int(self._clock.now().timestamp())
        end_s = now_s - now_s % MINUTE_S
        start_s = max(self._saved_to_s, now_s - HOUR_S)
        last_s = end_s if whole_minutes else end_s + MINUTE_S
        minutes = [row for at in range(start_s, last_s, MINUTE_S) for row in self._minute(at)]
        try:
            await self._store.save(minutes, now_s - HOUR_S - MINUTE_S)
        except (*UNREACHABLE, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("metrics not saved; tried again in a minute", error=repr(error))
            return
        self._saved_to_s = end_s

    def _minute(self, at: int) -> list[tuple[int, Key, list[Cell]]]:
        found = []
        for key, history in self._recorder.histories.items():
            cells = [c for c in history.tens.between(at, at + MINUTE_S) if c.interval_s or c.usage_s]
            if cells:
                found.append((at, key, cells))
        return found
