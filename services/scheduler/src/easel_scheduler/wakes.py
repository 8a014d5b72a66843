"""Who is woken, in this copy of the scheduler and in the others.

A fact may reach a copy that does not hold the lease for what it concerns. While a copy holds every shard there is no
other; else each wake-up is told to all by NOTIFY. A lost one costs latency: the resync finds the same work. A copy
that gains the placement lease looks at everything once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import asyncpg

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.leases import SHARDS, Leases
from easel_kit.reconcile import Reconciler
from easel_kit.telemetry import get_logger
from easel_scheduler.planner import PLACEMENT

CHANNEL = "scheduler_wakes"
LEASE_CHECK_S = 0.5
AGAIN_S = 0.5
QUEUED = 10_000
"""Wake-ups that wait for the database; more are dropped, the resync finds them."""

Keys = Callable[[], Awaitable[Iterable[str]]]

log = get_logger("wakes")


class Wakes:
    """Wakes loops by name."""

    def __init__(self, database: Database, leases: Leases, clock: Clock) -> None:
        self._database, self._leases, self._clock = database, leases, clock
        self._loops: dict[str, Reconciler] = {}
        self._keys: dict[str, Keys] = {}
        self._outgoing: asyncio.Queue[str] = asyncio.Queue(QUEUED)

    def add(self, loop: Reconciler, keys: Keys) -> Reconciler:
        """One more loop, known by its name."""
        self._loops[loop.name], self._keys[loop.name] = loop, keys
        return loop

    def wake(self, loop: str, key: str) -> None:
        """Has a key looked at by whoever holds its lease."""
        self._loops[loop].wake(key)
        if self._leases.held() < SHARDS and not self._outgoing.full():
            self._outgoing.put_nowait(f"{loop} {key}")

    def wake_here(self, loop: str, key: str) -> None:
        """Has a key looked at by this copy."""
        self._loops[loop].wake(key)

    async def send_for_ever(self) -> None:
        """Tells the other copies."""
        while True:
            message = await self._outgoing.get()
            try:
                async with self._database.connection() as connection:
                    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("other copies not woken", error=repr(error))

    async def listen_for_ever(self) -> None:
        """Hears the other copies (and itself: waking twice costs nothing but a look)."""
        while True:
            try:
                await self._listen()
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("other copies not heard", error=repr(error))
            await self._clock.sleep(AGAIN_S)

    async def take_over_for_ever(self) -> None:
        """Looks at everything when the placement lease comes to this copy."""
        held = False
        while True:
            before, held = held, self._leases.token_for(PLACEMENT) is not None
            if held and not before:
                held = await self._look_at_everything()
            await self._clock.sleep(LEASE_CHECK_S)

    async def _look_at_everything(self) -> bool:
        try:
            for name, keys in self._keys.items():
                for key in await keys():
                    self._loops[name].wake(key)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            log.warning("not taken over yet", error=repr(error))
            return False
        log.info("placement lease held")
        return True

    async def _listen(self) -> None:
        connection = await self._database.dedicated()
        closed = asyncio.Event()
        try:
            connection.add_termination_listener(lambda *_: closed.set())
            await connection.add_listener(CHANNEL, self._heard)
            await closed.wait()
        finally:
            await connection.close(timeout=1)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        loop, _, key = str(payload).partition(" ")
        if loop in self._loops:
            self._loops[loop].wake(key)
