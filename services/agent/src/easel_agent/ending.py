"""Ends a program as it was asked for: SIGTERM if wanted, then time, sooner where somebody asks for it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from easel_agent.model import Stopping
from easel_agent.runtime import Program
from easel_kit.clock import Clock


async def end(program: Program, how: Callable[[], Stopping], changed: asyncio.Event, clock: Clock) -> None:
    """Returns when the program has ended or its time is over: the caller kills what is left.

    `how` is asked again each time `changed` is set. Without SIGTERM a program with nothing in flight has no time.
    """
    began = clock.monotonic()
    while not program.exited.done():
        wanted = how()
        if wanted.sigterm:
            program.terminate()
        left_s = 0.0 if wanted.idle and not wanted.sigterm else wanted.grace_s
        left_s -= clock.monotonic() - began
        if left_s <= 0:
            return
        changed.clear()
        sooner = asyncio.create_task(changed.wait())
        pause = asyncio.create_task(clock.sleep(left_s))
        waiting: list[asyncio.Future[Any]] = [program.exited, sooner, pause]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sooner.cancel()
            pause.cancel()
