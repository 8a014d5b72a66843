"""Messages of different keys at the same time, messages of one key one after another. Knows nothing of the bus.

The rule of order: of the messages of a key that are here, the one with the lowest sequence is handled next, and only
when the one before has been handled, well or not. One that failed and was given back comes again later; until then
those after it go on, so one bad message never holds up its key. Readers must therefore drop what is older than what
they know (`row_version`), as they must for repetitions anyway.

What is here is bounded: `put` always takes, whoever feeds waits for `room` before fetching more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from heapq import heappop, heappush
from typing import Generic, TypeVar

from easel_kit.telemetry import get_logger

M = TypeVar("M")

log = get_logger("lanes")


class Held(Generic[M]):
    """A message that is here. Delivered again meanwhile, it is the same message in a newer copy."""

    def __init__(self, message: M) -> None:
        self.message = message
        """The newest copy; by it, the message is to be settled."""


class Lanes(Generic[M]):
    """One lane for each key that has messages here."""

    def __init__(self, handle: Callable[[Held[M]], Awaitable[None]], *, at_once: int, hold: int) -> None:
        """`at_once`: lanes that move at a time. `hold`: messages from which on there is no `room`."""
        self._handle, self._hold = handle, hold
        self._slots = asyncio.Semaphore(at_once)
        self._held: dict[int, Held[M]] = {}
        self._lanes: dict[str, list[int]] = {}
        """Key → heap of the sequences that wait."""
        self._moving: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._fed = asyncio.Event()
        """Somebody waits for room, so that all of the last fetch is here."""
        self._ending = False

    def put(self, key: str, sequence: int, message: M) -> None:
        """Takes a message. Its lane begins to move after everything that is put without a pause between."""
        if held := self._held.get(sequence):
            held.message = message
            return
        self._held[sequence] = Held(message)
        if key in self._lanes:
            heappush(self._lanes[key], sequence)
        else:
            self._lanes[key] = [sequence]
            task = asyncio.create_task(self._move(key))
            self._moving.add(task)
            task.add_done_callback(self._moving.discard)
        if len(self._held) >= self._hold and not self._ending:
            self._room.clear()

    async def room(self) -> None:
        """Returns when fewer than `hold` messages are here; after `shut`, at `release`."""
        if not self._room.is_set():
            self._fed.set()
            await self._room.wait()
            self._fed.clear()

    def held(self) -> list[M]:
        """Everything that is here."""
        return [held.message for held in self._held.values()]

    def shut(self) -> None:
        """There is no room from now on, however little is here."""
        self._ending = True
        self._room.clear()

    async def fed(self, longest_s: float) -> None:
        """After `shut`: returns when somebody waits for room, or so much later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._fed.wait()

    async def finish(self, longest_s: float) -> list[M]:
        """Handles what is here for so long, then stops in the middle; gives what was not handled to its end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                while self._moving:
                    await asyncio.wait(self._moving)
        left = list(self._moving)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return self.held()

    def release(self) -> None:
        """Lets go who waits for room, to feed no more."""
        self._room.set()

    async def _move(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            async with self._slots:
                await self._take(heappop(lane))
        del self._lanes[key]

    async def _take(self, sequence: int) -> None:
        try:
            await self._handle(self._held[sequence])
        except Exception as error:  # a lane that ends would hold its key's messages for ever
            log.error("not handled", sequence=sequence, error=repr(error))
        del self._held[sequence]
        if len(self._held) < self._hold and not self._ending:
            self._room.set()
