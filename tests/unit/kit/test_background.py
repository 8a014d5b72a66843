"""Background tasks end with the process, also where a request to end was lost on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from easel_kit.run import Process
from easel_kit.settings import ProcessSettings
from easel_kit.testing import plain_settings


def process(path: Path) -> Process[ProcessSettings]:
    return Process("scheduler", plain_settings(path, "nats://127.0.0.1:1", "scheduler", {}), ())


async def test_a_lost_cancellation_is_asked_for_again(tmp_path: Path) -> None:
    """As where an answer comes at the same time, and wait_for hands out that instead: the task waits for the next."""
    made, asking, lost = process(tmp_path), asyncio.Event(), asyncio.Event()

    async def asks() -> None:
        asking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    made.background(asks)
    working = asyncio.create_task(made.run_background())
    await asking.wait()
    working.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait({working})

    assert working.cancelled()
    assert lost.is_set()


async def test_one_that_ends_ends_the_others(tmp_path: Path) -> None:
    """A part that is missing is worse than a restart; why it ended is told."""
    made, others = process(tmp_path), []

    async def breaks() -> None:
        raise ValueError("broken")

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            others.append("ended")

    made.background(goes_on)
    made.background(breaks)
    with pytest.raises(ExceptionGroup) as raised:
        await made.run_background()

    assert raised.group_contains(ValueError, match="broken")
    assert others == ["ended"]
