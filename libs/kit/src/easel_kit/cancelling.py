"""Ends tasks for certain: one request to end may be lost."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 1.0


async def ended(task: asyncio.Future[Any]) -> None:
    """Returns when the task has ended, which is asked for as often as it takes.

    Before Python 3.12 `asyncio.wait_for`, which nats-py does every request with, forgets a cancellation that comes in
    the moment in which what it waits for is done. What must not be interrupted at its own end guards itself.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
