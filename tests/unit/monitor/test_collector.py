"""Several Envoys' streams as one sequence of frames."""

from __future__ import annotations

import asyncio

from easel_contracts.metrics import ServiceMetrics
from easel_kit.testing import ManualClock, eventually
from easel_monitor.decide.frames import ClusterSeen, Report
from easel_monitor.frames import SILENCE_S, Collector

KEY = ("default", "ocr")


class Frames:
    """A collector and the frames it closed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.closed: list[list[ServiceMetrics]] = []
        self.collector = Collector(self.clock, self.on_frame)

    async def on_frame(self, seen: list[ServiceMetrics], at_unix_s: float) -> None:
        self.closed.append(seen)

    async def report(self, envoy: str, ok: int, active: int = 0) -> None:
        seen = ClusterSeen(requests=(0, ok, 0, 0, 0), active=active, healthy=1)
        at = self.clock.now().timestamp()
        await self.collector.take(Report(envoy=envoy, at_unix_s=at, interval_s=1.0, services={KEY: seen}))

    def counts(self) -> list[int]:
        return [sum(s.requests_by_code.get("2xx", 0) for s in frame) for frame in self.closed]


async def test_one_envoy_makes_one_frame_per_report() -> None:
    """No timer of ours cuts Envoy's seconds: each report is a frame."""
    frames = Frames()
    frames.collector.opened("a")
    for n in (1, 2, 3):
        frames.clock.move(1.0)
        await frames.report("a", n)

    assert frames.counts() == [1, 2, 3]


async def test_two_envoys_make_common_frames() -> None:
    """A frame waits for both; a second report of one closes it without the other, whose requests come later."""
    frames = Frames()
    frames.collector.opened("a")
    frames.collector.opened("b")
    await frames.report("a", 1, active=1)
    await frames.report("b", 10, active=5)
    await frames.report("a", 2, active=1)
    frames.clock.move(1.0)
    await frames.report("a", 3, active=2)
    await frames.report("b", 20, active=5)

    assert frames.counts() == [11, 2, 23]
    assert [frame[0].in_flight for frame in frames.closed] == [6, 6, 7]


async def test_a_gone_envoy_is_not_waited_for() -> None:
    """Its stream's end takes it out of the next frames, gauges too."""
    frames = Frames()
    frames.collector.opened("a")
    frames.collector.opened("b")
    await frames.report("a", 1, active=1)
    await frames.report("b", 1, active=5)
    frames.collector.closed("b")
    await frames.report("a", 1, active=1)

    assert [frame[0].in_flight for frame in frames.closed] == [6, 1]


async def test_silence_makes_empty_frames() -> None:
    """While no Envoy reports, frames come that say nothing of any service."""
    frames = Frames()
    running = asyncio.create_task(frames.collector.run())
    await asyncio.sleep(0)
    for _ in range(3):
        frames.clock.move(SILENCE_S)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert await eventually(lambda: len(frames.closed) >= 3)
    assert all(frame == [] for frame in frames.closed)
    running.cancel()
