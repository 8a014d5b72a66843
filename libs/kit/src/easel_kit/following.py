"""What a process does for as long as it runs to know what others told: asks the owners once, watches its consumer,
forgets what ended long ago."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import asyncpg
import grpc.aio

from easel_contracts.facts import Entity
from easel_kit import projection as projections
from easel_kit.bus import Bus, ConsumerDrift, FactHandler
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.facts_api import OWNERS, fetch
from easel_kit.telemetry import get_logger

CHECK_CONSUMER_S = 15.0
PRUNE_S = 600.0
REBUILD_FIRST_S, REBUILD_LONGEST_S = 0.05, 1.0
"""Between questions to owners that do not answer yet: everything starts at once, in any order."""


class Following:
    """The background tasks of a process that listens to facts; each runs for ever."""

    def __init__(
        self, process: str, bus: Bus, database: Database, clock: Clock, *, listens: tuple[Entity, ...],
        handlers: Mapping[Entity, FactHandler], channel: Callable[[str], grpc.aio.Channel],
    ) -> None:  # fmt: skip
        """`channel`: to the process of a name."""
        self._process, self._bus, self._database, self._clock = process, bus, database, clock
        self._listens, self._handlers, self._channel = listens, handlers, channel
        self._log = get_logger(process)
        self.lag = 0
        """Facts not yet handled, at the last look."""

    async def rebuild(self) -> None:
        """Asks each owner once for its newest facts; the durable consumer brings the rest."""
        todo = [entity for entity in self._handlers if OWNERS[entity] != self._process or entity == "key"]
        pause_s = REBUILD_FIRST_S
        while todo:
            for entity in list(todo):
                try:
                    found = await fetch(self._channel(OWNERS[entity]), entity)
                except grpc.aio.AioRpcError as error:
                    self._log.debug("owner does not answer yet", entity=entity, error=error.details())
                    continue
                for fact in found:
                    await self._handlers[entity](fact)
                todo.remove(entity)
            await self._clock.sleep(pause_s if todo else 0)
            pause_s = min(2 * pause_s, REBUILD_LONGEST_S)
        await asyncio.Event().wait()

    async def watch_consumer(self) -> None:
        """Measures the lag; raises ConsumerDrift when the consumer is gone or has changed."""
        while True:
            try:
                self.lag = await self._bus.check_consumer(self._listens)
            except ConsumerDrift:
                raise
            except Exception as error:  # NATS is away for a while; the connection comes back by itself
                self._log.warning("consumer not checked", error=repr(error))
            await self._clock.sleep(CHECK_CONSUMER_S)

    async def prune(self) -> None:
        """Keeps the projections from growing."""
        while True:
            await self._clock.sleep(PRUNE_S)
            try:
                await projections.prune(self._database)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                self._log.warning("not pruned", error=repr(error))
