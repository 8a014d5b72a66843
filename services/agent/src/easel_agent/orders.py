"""What the scheduler wants of one replica beyond running: a start of its program anew, its end. An end wins."""

from __future__ import annotations

import asyncio

from easel_agent.model import Restarting, Stopping

NEVER = Restarting(number=0, how=Stopping(grace_s=0, sigterm=False, idle=False))


class Orders:
    """The newest of each; the replica's task waits for them and carries them out."""

    def __init__(self) -> None:
        self.stopping: Stopping | None = None
        self.stop_asked = asyncio.Event()
        self.restarting = NEVER
        self.restart_asked = asyncio.Event()

    def stop(self, stopping: Stopping) -> None:
        """Ask for the end. A later call may only make it come sooner."""
        if self.stopping is None or stopping.grace_s < self.stopping.grace_s or stopping.idle:
            self.stopping = stopping
            self.stop_asked.set()

    def restart(self, restarting: Restarting) -> None:
        """Ask for the program to be ended and started anew, with all else as it is; in back-off: to be started at once.

        A number not above the newest asked for changes nothing, nor does any after `stop`, nor for a replica that has
        failed: that one has no program and will have none.
        """
        if self.stopping is None and restarting.number > self.restarting.number:
            self.restarting = restarting
            self.restart_asked.set()

    def how_to_stop(self) -> Stopping:
        """Only after `stop`."""
        assert self.stopping is not None
        return self.stopping

    def how_to_restart(self) -> Stopping:
        """As the newest restart wants it."""
        return self.restarting.how

    async def restart_above(self, number: int) -> None:
        """Returns when a restart with a higher number has been asked for. One waiter at a time."""
        while self.restarting.number <= number:
            self.restart_asked.clear()
            await self.restart_asked.wait()

    async def leave_to_stop(self) -> None:
        """Returns unless the end has been asked for: `live` carries that out, and cancels who waits here."""
        if self.stopping is not None:
            await asyncio.Event().wait()
