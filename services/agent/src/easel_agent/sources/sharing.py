"""One fetch of the same thing at a time: whoever wants it meanwhile waits for it too, and hears of its progress.

A fetch that nobody waits for any more is cancelled, and no other of the same thing begins before it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from easel_agent.sources.model import Event

T = TypeVar("T")


class Flights(Generic[T]):
    """Fetches that are under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}

    async def share(self, key: str, event: Event, make: Callable[[Event], Coroutine[Any, Any, T]]) -> T:
        """What `make` gives, made once for all who ask meanwhile. Raises what `make` raises, to all of them."""
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._begin(key, make)
            elif flight.abandoned:
                await asyncio.wait([flight.task])
                continue
            return await flight.join(event)

    def _begin(self, key: str, make: Callable[[Event], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = _Flight(make)
        self._flights[key] = flight

        def ended(task: asyncio.Task[T]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if not task.cancelled():
                task.exception()  # seen, also where nobody waits any more

        flight.task.add_done_callback(ended)
        return flight


class _Flight(Generic[T]):
    def __init__(self, make: Callable[[Event], Coroutine[Any, Any, T]]) -> None:
        self._listeners: list[Event] = []
        self.abandoned = False
        self.task = asyncio.create_task(make(self._say))

    async def join(self, event: Event) -> T:
        self._listeners.append(event)
        try:
            return await asyncio.shield(self.task)
        finally:
            self._listeners.remove(event)
            if not self._listeners and not self.task.done():
                self.abandoned = True
                self.task.cancel()
                await asyncio.wait([self.task])

    def _say(self, text: str) -> None:
        for listener in self._listeners:
            listener(text)
