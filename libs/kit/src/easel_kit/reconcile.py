"""The reconcile loop: woken by a fact or a timer, one key at a time, back-off with jitter on errors.

An event wakes, the state decides: `wake` carries nothing but the key. The resync timer finds the same work should
a wake-up have been lost. Work is proportional to the keys woken.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable, Iterable

from easel_kit.clock import Clock
from easel_kit.db import Stale
from easel_kit.telemetry import get_logger

Reconcile = Callable[[str], Awaitable[float | None]]
"""Brings one key's world to what is wanted; returns seconds until it wants to look again, or None."""

log = get_logger("reconcile")


class Reconciler:
    """Runs `reconcile(key)` for woken keys: never twice at once for a key, at most `concurrency` keys at once."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        clock: Clock,
        keys: Callable[[], Awaitable[Iterable[str]]],
        *,
        resync_s: float = 30.0,
        concurrency: int = 8,
        backoff_s: tuple[float, float] = (0.1, 30.0),
    ) -> None:
        self.name = name
        self._reconcile, self._clock, self._keys = reconcile, clock, keys
        self._resync_s, self._backoff_s = resync_s, backoff_s
        self._slots = asyncio.Semaphore(concurrency)
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._running: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.last_success = 0.0
        """Monotonic time of the last key that was reconciled; 0 before the first."""

    def wake(self, key: str, after_s: float = 0.0) -> None:
        """Has the key looked at, now or in so many seconds; the earliest wish counts."""
        at = self._clock.monotonic() + after_s
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._heap, (at, key))
            self._changed.set()

    async def run(self) -> None:
        """Works for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync())
            while True:
                key = await self._next()
                await self._slots.acquire()
                self._running.add(key)
                group.create_task(self._one(key))

    def failing(self) -> dict[str, int]:
        """Keys whose last try failed, and how many times in a row."""
        return dict(self._failures)

    async def _next(self) -> str:
        while True:
            self._changed.clear()
            now = self._clock.monotonic()
            if key := self._pop(now):
                return key
            wait = self._heap[0][0] - now if self._heap else None
            try:
                async with asyncio.timeout(None if wait is None else max(wait, 0.001)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _pop(self, now: float) -> str | None:
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._due.get(key) != at:
                continue  # a later entry of a key that was woken earlier
            if key in self._running:
                # looked at again when the present run ends
                self._due[key] = float("-inf")
                continue
            del self._due[key]
            return key
        return None

    async def _one(self, key: str) -> None:
        again: float | None = None
        try:
            again = await self._reconcile(key)
            self._failures.pop(key, None)
            self.last_success = self._clock.monotonic()
        except Stale:
            again = 0.0
        except Exception as error:  # one key's trouble must not stop the others
            again = self._failed(key, error)
        finally:
            self._slots.release()
            self._running.discard(key)
            if self._due.get(key) == float("-inf"):
                del self._due[key]
                self.wake(key)
            if again is not None:
                self.wake(key, again)

    def _failed(self, key: str, error: Exception) -> float:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        first, longest = self._backoff_s
        delay: float = min(first * 2 ** min(failures - 1, 20), longest) * random.uniform(0.7, 1.3)
        log.warning("reconcile failed", loop=self.name, key=key, failures=failures, retry_s=round(delay, 2),
                    error=repr(error), exc_info=failures == 1)  # fmt: skip
        return delay

    async def _resync(self) -> None:
        while True:
            try:
                for key in await self._keys():
                    self.wake(key)
            except Exception as error:  # the next round tries again; wake-ups still work
                log.warning("resync failed", loop=self.name, error=repr(error))
            await self._clock.sleep(self._resync_s * random.uniform(0.9, 1.1))
