"""Follows what a container writes, into the replica's own log; goes on where it left off when the engine was away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_agent.replica_log import ReplicaLog
from easel_kit.clock import Clock

AGAIN_S = 0.5
MARKS = {1: "O", 2: "E"}


class Follower:
    """One container's output."""

    def __init__(self, engine: Engine, container: str, log: ReplicaLog, clock: Clock, *, prefix: bytes = b"",
                 since: str = "0") -> None:  # fmt: skip
        """`prefix`: before each line, to tell a sidecar's. `since`: a time as the engine writes it, of the last
        line."""
        self._engine, self._container, self._log, self._clock = engine, container, log, clock
        self._prefix, self._last, self._seen = prefix, since, since
        self._rest: dict[int, bytes] = {}
        self.ended = asyncio.Event()
        """The container's output is at its end, and all of it is kept."""

    async def run(self) -> None:
        """Until the container has ended, or this is cancelled."""
        try:
            while not await self._follow():
                await self._clock.sleep(AGAIN_S)
        finally:
            for kind, rest in self._rest.items():
                self._log.add(MARKS.get(kind, "O").lower(), self._prefix + rest)
            self.ended.set()

    async def _follow(self) -> bool:
        parameters = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1"}
        self._seen = self._last
        """What is not newer was kept before the engine went away."""
        if self._seen != "0":
            parameters["since"] = _seconds(self._seen)
        frames = self._engine.frames(f"containers/{self._container}/logs", params=parameters)
        try:
            async with aclosing(frames) as pieces:
                async for kind, data in pieces:
                    self._take(kind, data)
        except EngineAway:
            return False
        except EngineError:  # it was removed
            return True
        return True

    def _take(self, kind: int, data: bytes) -> None:
        """A frame is a line, or a piece of a long one; each begins with its time, pieces with that of their line.

        Times of stdout and stderr are not in order.
        """
        at, _, text = data.partition(b" ")
        when = at.decode("ascii", "replace")
        if when <= self._seen and self._seen != "0":
            return
        self._last = max(self._last, when)
        whole = self._rest.pop(kind, b"") + text
        if whole.endswith(b"\n"):
            self._log.add(MARKS.get(kind, "O"), self._prefix + whole[:-1])
        elif len(whole) > 1 << 16:
            self._log.add(MARKS.get(kind, "O").lower(), self._prefix + whole)
        else:
            self._rest[kind] = whole


def _seconds(when: str) -> str:
    """`2026-01-01T00:00:00.123456789Z` as unix seconds with nanoseconds, as `since` wants it."""
    day, _, rest = when.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(day + "+00:00").timestamp())
    return f"{seconds}.{rest or '0'}"


def written_until(file: Path) -> str:
    """When a log was last written to, as the engine writes times; `0` where there is none."""
    try:
        at_ns = file.stat().st_mtime_ns
    except OSError:
        return "0"
    return f"{datetime.fromtimestamp(at_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{at_ns % 10**9:09}Z"
