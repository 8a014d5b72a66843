"""Exact counts of requests under analysis: per canary, arm and second; in memory, and written once a second.

A second is the one in which the monitor heard of a request's end, by its own clock, which is never turned back here:
so nothing comes late, and a second that is over does not change any more. What was counted and not written when the
process dies is lost, at most a second; requests that an Envoy logs while no monitor listens are lost as well. Where
something is lost evidence grows slower; nothing is made up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import asyncpg

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
from easel_kit.telemetry import get_logger
from easel_monitor.decide.outcomes import Outcome
from easel_monitor.model import ArmSecond
from easel_monitor.store import ArmSeconds

IN_MEMORY_S = 600
"""Seconds that are served without the database."""
UNSAVED_MOST = 200_000
"""Rows that wait while the database is away; then the oldest are given up."""
KEPT_S = 7 * 24 * 3600
PRUNE_EVERY_S = 3600

log = get_logger("arm-counts")


class _Tally:
    __slots__ = ("bins", "errors", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = 0
        self.bins: dict[int, int] = {}


class ArmCounts:
    """Counts, and what is needed of them lately."""

    def __init__(self, clock: Clock, store: ArmSeconds) -> None:
        self._clock, self._store = clock, store
        self._second = int(clock.now().timestamp())
        self._running: dict[tuple[str, str], _Tally] = {}
        self._recent: dict[str, deque[ArmSecond]] = {}
        self._unsaved: deque[ArmSecond] = deque()
        self._complete_from = self._second
        self._pruned_at = -float(PRUNE_EVERY_S)
        self.requests = 0
        """Counted since the start of this process."""

    async def load(self) -> None:
        """Goes on after the last second that was written: a second is told once."""
        self._second = self._complete_from = max(self._second, await self._store.newest() + 1)

    def take(self, outcomes: Iterable[tuple[str, str, Outcome]]) -> None:
        """Counts requests that were heard of just now."""
        self.roll()
        running = self._running
        for subject, arm, outcome in outcomes:
            tally = running.get((subject, arm))
            if tally is None:
                tally = running[subject, arm] = _Tally()
            tally.requests += 1
            tally.errors += outcome.error
            if outcome.latency_bin is not None:
                tally.bins[outcome.latency_bin] = tally.bins.get(outcome.latency_bin, 0) + 1
            self.requests += 1

    def roll(self) -> int:
        """Closes the seconds that are over; the last of them."""
        now_s = int(self._clock.now().timestamp())
        if now_s > self._second:
            self._close()
            self._second = now_s
        return self._second - 1

    def recent(self, subject: str, after_unix_s: int) -> list[ArmSecond] | None:
        """A subject's closed seconds after one, by time; None: memory does not reach back so far."""
        if after_unix_s + 1 < self._complete_from:
            return None
        return [row for row in self._recent.get(subject, ()) if row.unix_s > after_unix_s]

    def unsaved(self, subject: str, after_unix_s: int) -> list[ArmSecond]:
        """Closed seconds that the database does not have yet, by time."""
        return [row for row in self._unsaved if row.subject == subject and row.unix_s > after_unix_s]

    async def run(self) -> None:
        """Closes, writes and prunes, once a second."""
        while True:
            await self._clock.sleep(1.0 - self._clock.now().timestamp() % 1.0 + 0.01)
            self.roll()
            await self.save()

    async def save(self, *, ending: bool = False) -> None:
        """Writes what is closed; with `ending`, the running second too. Kept where the database is away."""
        if ending:
            self._close()
            self._second += 1
        rows = list(self._unsaved)
        now = self._clock.monotonic()
        try:
            if rows:
                await self._store.save(rows)
            if now - self._pruned_at >= PRUNE_EVERY_S:
                await self._store.prune(int(self._clock.now().timestamp()) - KEPT_S)
                self._pruned_at = now
        except (*UNREACHABLE, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("counts not saved; tried again in a second", error=repr(error), rows=len(rows))
            return
        while rows and self._unsaved and self._unsaved[0].unix_s <= rows[-1].unix_s:
            self._unsaved.popleft()

    def _close(self) -> None:
        rows = [
            ArmSecond(subject=subject, unix_s=self._second, arm=arm, requests=tally.requests, errors=tally.errors,
                      bins=tally.bins)
            for (subject, arm), tally in sorted(self._running.items(), key=lambda item: item[0])
        ]  # fmt: skip
        self._running = {}
        self._unsaved.extend(rows)
        while len(self._unsaved) > UNSAVED_MOST:
            self._unsaved.popleft()
        oldest = self._second - IN_MEMORY_S
        for row in rows:
            self._recent.setdefault(row.subject, deque()).append(row)
        for subject, kept in list(self._recent.items()):
            while kept and kept[0].unix_s < oldest:
                kept.popleft()
            if not kept:
                del self._recent[subject]
        self._complete_from = max(self._complete_from, oldest)
