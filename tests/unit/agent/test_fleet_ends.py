"""The fleet ends in order, however often that is asked for."""

from __future__ import annotations

import asyncio

from easel_agent.fleet import Fleet


class Ending(Fleet):
    """Its replicas take as long as the test wants."""

    def __init__(self) -> None:
        self.asked, self.may_end, self.ended = asyncio.Event(), asyncio.Event(), False

    async def close(self) -> None:
        self.asked.set()
        await self.may_end.wait()
        self.ended = True


async def test_asked_again_while_replicas_end() -> None:
    """Nothing is left half way: `keep` returns when the last replica is gone."""
    fleet = Ending()
    keeping = asyncio.create_task(fleet.keep())
    await asyncio.sleep(0)
    for _ in range(3):
        keeping.cancel()
        await fleet.asked.wait()
    assert not keeping.done()
    fleet.may_end.set()
    await asyncio.wait({keeping})

    assert fleet.ended
    assert keeping.cancelled()
