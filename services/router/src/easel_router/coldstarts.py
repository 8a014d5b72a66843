"""Cold starts seen, per revision: kept in rows, the newest few in memory; see `decide/coldstart`."""

from __future__ import annotations

import asyncio

import asyncpg
import msgspec

from easel_contracts.facts import ReplicaState
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Database
from easel_kit.run import Process
from easel_router.decide.coldstart import KEPT, typical
from easel_router.decide.snapshot import ServicePlan
from easel_router.model import Known
from easel_router.settings import Settings

_phases = msgspec.json.Decoder(dict[str, float])


class ColdStarts:
    """Learns from replicas that begin to take traffic."""

    def __init__(self, database: Database, clock: Clock, workspace: str) -> None:
        self._database, self._clock, self._workspace = database, clock, workspace
        self._samples: dict[str, dict[int, list[dict[str, float]]]] = {}
        """Service → revision → newest samples, oldest first."""
        self._seen: set[str] = set()

    async def load(self) -> None:
        """Everything that was learned before."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "SELECT service, revision, replica, phase_s FROM cold_starts WHERE workspace = $1 ORDER BY at",
                self._workspace,
            )
        for row in rows:
            self._remember(row["service"], row["revision"], row["replica"], _phases.decode(row["phase_s"]))

    async def learn(self, replica: ReplicaState, route_s: float) -> None:
        """A replica takes traffic for the first time; `route_s`: from the router's decision to that."""
        if replica.id in self._seen or not replica.phase_s or replica.restarts:
            return
        phase_s = {**replica.phase_s, "route": round(route_s, 4)}
        self._remember(replica.service, replica.revision, replica.id, phase_s)
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO cold_starts (workspace, service, revision, replica, at, phase_s)"
                " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                self._workspace, replica.service, replica.revision, replica.id, self._clock.now(),
                msgspec.json.encode(phase_s).decode(),
            )  # fmt: skip
            await connection.execute(
                "DELETE FROM cold_starts WHERE workspace = $1 AND service = $2 AND revision = $3 AND replica NOT IN"
                " (SELECT replica FROM cold_starts WHERE workspace = $1 AND service = $2 AND revision = $3"
                "  ORDER BY at DESC LIMIT $4)",
                self._workspace, replica.service, replica.revision, KEPT,
            )  # fmt: skip

    def typical(self, service: str, revision: int) -> dict[str, float]:
        """Median seconds by phase, and `total`; of the newest revision that is known where this one is not."""
        of_service = self._samples.get(service)
        if not of_service:
            return {}
        return typical(of_service.get(revision) or of_service[max(of_service)])

    def seen(self, service: str, revision: int) -> int:
        """How many cold starts of a revision count."""
        return len(self._samples.get(service, {}).get(revision, ()))

    def ended(self, replica: str) -> None:
        """A replica is no more."""
        self._seen.discard(replica)

    async def forget(self, service: str) -> None:
        """The service is gone."""
        self._samples.pop(service, None)
        async with self._database.connection() as connection:
            await connection.execute(
                "DELETE FROM cold_starts WHERE workspace = $1 AND service = $2", self._workspace, service
            )

    def _remember(self, service: str, revision: int, replica: str, phase_s: dict[str, float]) -> None:
        self._seen.add(replica)
        samples = self._samples.setdefault(service, {}).setdefault(revision, [])
        samples.append(phase_s)
        del samples[:-KEPT]


class Learning:
    """Writes down the cold starts of replicas that begin to take traffic; nobody waits for that."""

    def __init__(self, known: Known, cold_starts: ColdStarts, process: Process[Settings]) -> None:
        self._known, self._cold_starts, self._process = known, cold_starts, process
        self._due: asyncio.Queue[tuple[ReplicaState, float]] = asyncio.Queue()

    def applied(self, plan: ServicePlan, took_s: float) -> None:
        """A plan is live; what was live before teaches nothing."""
        for replica in plan.serving if took_s else ():
            if (state := self._known.replica(replica)) is not None:
                self._due.put_nowait((state, took_s))

    async def run(self) -> None:
        """For ever; a sample that cannot be stored is lost, which costs an estimate."""
        while True:
            replica, route_s = await self._due.get()
            try:
                await self._cold_starts.learn(replica, route_s)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                self._process.log.warning("cold start not stored", replica=replica.id, error=repr(error))
