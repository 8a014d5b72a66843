"""Collects the Envoys' reports into frames and hands each closed frame on; the rules are in decide/frames.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from easel_contracts.metrics import ServiceMetrics
from easel_kit.clock import Clock
from easel_monitor.decide import frames
from easel_monitor.decide.frames import Report

OnFrame = Callable[[list[ServiceMetrics], float], Awaitable[None]]

SILENCE_S = 1.6
"""Without a frame for so long, an empty one is made: what agents say must not wait for an Envoy."""


class Collector:
    """All Envoys' streams, as one sequence of frames, about one a second."""

    def __init__(self, clock: Clock, on_frame: OnFrame) -> None:
        self._clock, self._on_frame = clock, on_frame
        self._live: set[str] = set()
        self._frame: dict[str, Report] = {}
        self._last: dict[str, Report] = {}
        self._closed_at = clock.monotonic()
        self._heard_at: float | None = None
        self.rejected: dict[tuple[str, str], int] = {}
        """By service: requests that Envoy turned away itself, since the start of this process."""
        self._answered = 0
        self._routed = 0

    @property
    def envoys(self) -> int:
        """Envoys that have a stream open now."""
        return len(self._live)

    def silence_s(self) -> float | None:
        """Seconds since the last report; None when there was none yet."""
        return None if self._heard_at is None else self._clock.monotonic() - self._heard_at

    def answered_by_envoy(self) -> int:
        """Answers on the data listener that no cluster was charged with, since the start of this process."""
        return max(0, self._answered - self._routed)

    def opened(self, envoy: str) -> None:
        """An Envoy began a stream; frames wait for it from now on."""
        self._live.add(envoy)

    def closed(self, envoy: str) -> None:
        """Its stream ended: its gauges stand for nothing any more."""
        self._live.discard(envoy)
        self._last.pop(envoy, None)

    async def take(self, report: Report) -> None:
        """One report; closes the frame when it is complete."""
        self._heard_at = self._clock.monotonic()
        self._answered += sum(report.answered.values())
        for key, seen in report.services.items():
            self._routed += sum(seen.requests)
            if seen.rejected:
                self.rejected[key] = self.rejected.get(key, 0) + seen.rejected
        if report.envoy in self._frame:
            await self._close()
        self._frame[report.envoy] = report
        self._last[report.envoy] = report
        if frames.is_complete(self._frame, self._live):
            await self._close()

    async def run(self) -> None:
        """Makes empty frames while no Envoy reports."""
        while True:
            await self._clock.sleep(1.0)
            if self._clock.monotonic() - self._closed_at >= SILENCE_S:
                await self._close()

    async def _close(self) -> None:
        now = self._clock.now().timestamp()
        late = [r for envoy, r in self._last.items() if envoy not in self._frame]
        carried = [kept for r in late if (kept := frames.gauges_of(r, now)) is not None] if self._frame else []
        reports, self._frame = [*self._frame.values(), *carried], {}
        self._closed_at = self._clock.monotonic()
        await self._on_frame(frames.combine(reports, now), now)
