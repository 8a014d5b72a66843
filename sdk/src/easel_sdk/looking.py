"""Looking at something again and again until it is done or the time is used up.

Decides only when to look: at once when an event of the service comes, else once a second. What is seen, and whether
that is the end, is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

from easel_sdk.errors import EaselError, TimedOut
from easel_sdk.events import EventsApi

LOOK_EVERY_S = 1.0


class Look(Protocol):
    """What was seen at one moment."""

    @property
    def elapsed_s(self) -> float:
        """Since the first look."""

    @property
    def done(self) -> bool:
        """Whether it is the last one."""


L = TypeVar("L", bound=Look)


async def looks(
    events: EventsApi, name: str, look: Callable[[float], Awaitable[L]], *, timeout_s: float | None,
    timed_out: Callable[[L, float], TimedOut],
) -> AsyncIterator[L]:  # fmt: skip
    """Every look at service `name` until one is `done`. `look(elapsed_s)` makes one; raises what it raises, and
    `timed_out(last look, timeout_s)` when the time is over."""
    started = time.monotonic()
    woken = asyncio.Event()
    waker = asyncio.create_task(_wake(events, name, woken))
    try:
        while True:
            seen = await look(time.monotonic() - started)
            yield seen
            if seen.done:
                return
            left_s = LOOK_EVERY_S if timeout_s is None else timeout_s - seen.elapsed_s
            if left_s <= 0:
                raise timed_out(seen, timeout_s or 0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_EVERY_S, left_s)):
                    await woken.wait()
            woken.clear()
    finally:
        waker.cancel()
        await asyncio.gather(waker, return_exceptions=True)


async def _wake(events: EventsApi, name: str, woken: asyncio.Event) -> None:
    try:
        async for _ in events.watch(key=name):
            woken.set()
    except EaselError:
        return  # looking once a second finds the same
