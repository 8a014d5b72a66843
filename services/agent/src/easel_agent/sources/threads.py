"""Blocking work in threads that can be told to end: a thread cannot be killed, so it asks whether to go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from threading import Event
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Nobody wants the result any more."""


class TookTooLong(Exception):
    """The time that work was given is over."""


class Stop:
    """Asked by work between two of its pieces. For any thread."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._told = Event()

    def again(self) -> Stop:
        """Another one, with the same end: telling it does not tell this one."""
        return Stop(self._end - time.monotonic())

    def tell(self) -> None:
        """The work is to end."""
        self._told.set()

    def check(self) -> None:
        """Raises Stopped or TookTooLong where the work is to end."""
        if self._told.is_set():
            raise Stopped
        if time.monotonic() > self._end:
            raise TookTooLong


async def in_thread(pool: Executor, stop: Stop, work: Callable[[], T]) -> T:
    """The work's result. Cancelled, it tells the work to end and waits until it has: nothing writes on behind."""

    def begin() -> T:
        stop.check()
        return work()

    future = asyncio.get_running_loop().run_in_executor(pool, begin)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.tell()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
