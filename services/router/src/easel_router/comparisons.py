"""The reports of compared answers: kept in memory, written to their rows once a second where they changed.

Each service has one report, about two sides (`decide.sides`). Several copies of the router would each count what their
own Envoys send and write the same row, the last one last: one copy is at work today.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec
from msgspec import Struct

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.telemetry import get_logger
from easel_router.decide.report import Sample, Tally, add, skip
from easel_router.decide.sides import Sides, sides, target_of
from easel_router.model import Known

FLUSH_EVERY_S = 1.0
KEEP_DAYS = 30
"""A report to which nothing was added for so long is dropped."""

log = get_logger("comparisons")


class Report(Struct, frozen=True, kw_only=True):
    """What is known about two sides."""

    sides: Sides
    since: datetime
    tally: Tally = Tally()


_decoder = msgspec.msgpack.Decoder(Report)


class Comparisons:
    """The report of every service whose answers are, or were, compared."""

    def __init__(self, known: Known, database: Database, clock: Clock, workspace: str) -> None:
        self._known, self._database, self._clock, self._workspace = known, database, clock, workspace
        self._reports: dict[str, Report] = {}
        self._changed: set[str] = set()
        self._dropped: set[str] = set()
        self._news = asyncio.Event()

    async def load(self) -> None:
        """Everything from before. A report in a form that is not read any more begins anew."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT service, report FROM comparisons WHERE workspace = $1", self._workspace
            )
        for row in rows:
            try:
                self._reports[row["service"]] = _decoder.decode(row["report"])
            except msgspec.DecodeError as error:
                log.warning("report not read, it begins anew", service=row["service"], error=repr(error))

    def sides(self, service: str) -> Sides | None:
        """What is compared of a service now; None: nothing."""
        state = self._known.services.get(service)
        return sides(state, self._known.services.get(target_of(state)) if state is not None else None)

    def report(self, service: str) -> Report | None:
        """The report about the present sides; where nothing is compared now, the last one. None: there is none."""
        now = self.sides(service)
        if now is not None:
            return self._about(service, now)
        state, kept = self._known.services.get(service), self._reports.get(service)
        same = kept is not None and state is not None and kept.sides.stable.uid == state.uid
        return kept if same else None  # a later service of the same name is another

    def add(self, service: str, between: Sides, sample: Sample) -> None:
        """One sample more. One that was taken between other sides than the present ones is dropped."""
        self._take(service, between, lambda tally: add(tally, sample))

    def skip(self, service: str, between: Sides, why: str) -> None:
        """One copy more that was not compared."""
        self._take(service, between, lambda tally: skip(tally, why))

    def reset(self, service: str) -> None:
        """Forgets what was compared."""
        if self._reports.pop(service, None) is not None:
            self._changed.discard(service)
            self._dropped.add(service)
            self._news.set()

    async def run(self) -> None:
        """Writes what changed, for ever; a report that cannot be written now is written later."""
        while True:
            await self._news.wait()
            try:
                await self.flush()
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("reports not stored", error=repr(error))
                self._news.set()
            await self._clock.sleep(FLUSH_EVERY_S)

    async def flush(self) -> None:
        """Writes what changed; raises one of UNREACHABLE or PostgresError, and then nothing is lost."""
        self._news.clear()
        changed, dropped = self._changed, self._dropped
        self._changed, self._dropped = set(), set()
        try:
            async with self._database.transaction() as connection:
                await connection.execute(_DELETE, self._workspace, list(dropped))
                await connection.executemany(_UPSERT, [self._row(service) for service in changed])
        except BaseException:
            self._changed |= changed
            self._dropped |= dropped - self._changed
            raise

    async def prune(self) -> None:
        """Drops reports of services that are gone, and those that are old."""
        for service in list(self._reports):
            state = self._known.services.get(service)
            if state is None or state.wanted == "deleted":
                self.reset(service)
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "DELETE FROM comparisons WHERE workspace = $1 AND at < now() - make_interval(days => $2)"
                " RETURNING service",
                self._workspace, KEEP_DAYS,
            )  # fmt: skip
        for row in rows:
            if row["service"] not in self._changed:
                self._reports.pop(row["service"], None)

    def _take(self, service: str, between: Sides, change: Callable[[Tally], Tally]) -> None:
        if between != self.sides(service):
            return
        kept = self._about(service, between)
        self._reports[service] = msgspec.structs.replace(kept, tally=change(kept.tally))
        self._changed.add(service)
        self._dropped.discard(service)
        self._news.set()

    def _about(self, service: str, between: Sides) -> Report:
        """The report about these sides; where it was about others, it begins anew."""
        kept = self._reports.get(service)
        if kept is None or kept.sides != between:
            kept = self._reports[service] = Report(sides=between, since=self._clock.now())
        return kept

    def _row(self, service: str) -> tuple[str, str, str, datetime, datetime, bytes]:
        report = self._reports[service]
        return (
            self._workspace, service, report.sides.target, report.since, self._clock.now(),
            msgspec.msgpack.encode(report),
        )  # fmt: skip


_DELETE = "DELETE FROM comparisons WHERE workspace = $1 AND service = ANY($2)"
_UPSERT = """
INSERT INTO comparisons (workspace, service, target, since, at, report) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (workspace, service) DO UPDATE
SET target = excluded.target, since = excluded.since, at = excluded.at, report = excluded.report
"""
