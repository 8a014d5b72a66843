"""Facts and metrics in, decisions out: load → decide → guarded write. What is decided stands in `decide/`.

A fact wakes its service's reconcile; a tick a second looks at services that follow their load, in memory alone, and
wakes those where something is to be changed. So a quiet service costs no query. A message about a request that waits
goes straight to the guarded write, by what is in memory: somebody is waiting.
"""

from __future__ import annotations

import asyncpg
import msgspec

from easel_autoscaler.decide.decision import Decision
from easel_autoscaler.model import Entry, Fleet
from easel_autoscaler.store import Store
from easel_autoscaler.windows import Windows
from easel_contracts.facts import Fact, ServiceState
from easel_contracts.metrics import HoldMetrics, ServiceMetrics
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE, Stale
from easel_kit.leases import Leases
from easel_kit.projection import Projection
from easel_kit.reconcile import Reconciler
from easel_kit.telemetry import get_logger, span_from

TICK_S = 1.0
PRUNE_S = 3600.0
LEASE_LOOK_S = 5.0
"""How soon a service whose lease is elsewhere is looked at again."""

log = get_logger("autoscaler")
_metrics = msgspec.msgpack.Decoder(ServiceMetrics)
_hold = msgspec.msgpack.Decoder(HoldMetrics)


class Scaler:
    """The autoscaler's work on one workspace."""

    def __init__(
        self, services: Projection[ServiceState], store: Store, leases: Leases, clock: Clock, workspace: str
    ) -> None:
        self._services, self._store, self._leases = services, store, leases
        self._clock, self._workspace = clock, workspace
        self._traces: dict[str, str] = {}
        self.windows = Windows()
        self.fleet = Fleet(self.windows)
        self.reconciler = Reconciler("scale", self.reconcile, clock, self._names)
        self.activator = Reconciler("activate", self.activate, clock, self._awaited)
        """Apart from the other, so that no first request waits behind a resync of all services."""
        self.decisions = 0
        """Stored since the start."""

    async def on_service(self, fact: Fact) -> None:
        """A service is new, changed or gone."""
        if fact.workspace != self._workspace:
            return
        newer = await self._services.apply(fact)
        if newer and fact.cause.traceparent:
            self._traces[fact.key] = fact.cause.traceparent
        self.reconciler.wake(fact.key)

    async def on_metrics(self, subject: str, payload: bytes) -> None:
        """One second of one service."""
        metrics = _metrics.decode(payload)
        if metrics.workspace == self._workspace:
            self.windows.add(metrics, self._clock.monotonic())

    async def on_hold(self, subject: str, payload: bytes) -> None:
        """Requests of a service wait for a replica. Told again every second, so a lost message costs that second."""
        hold = _hold.decode(payload)
        if hold.workspace != self._workspace:
            return
        now_s = self._clock.monotonic()
        self.windows.add_waiting(hold, now_s)
        entry = self.fleet.get(hold.service)
        if entry is None or entry.current is None:
            self.reconciler.wake(hold.service)  # not loaded yet: this process has just begun, or the service has
        elif isinstance(self.fleet.observe(entry, now_s), Decision):
            self.activator.wake(hold.service)

    async def reconcile(self, name: str) -> float | None:
        """Decides for one service by its rows, and stores and tells what changed."""
        trace = self._traces.pop(name, None)
        state = await self._services.get(name, self._workspace)
        if state is None or state.wanted == "deleted":
            self.fleet.forget(name)
            return None
        return await self._act(self.fleet.see(state, await self._store.current(name)), trace)

    async def activate(self, name: str) -> float | None:
        """The same by what is in memory: no read stands between the first waiting request and the write, whose guard
        finds out where memory is behind."""
        entry = self.fleet.get(name)
        if entry is None:
            return None
        try:
            return await self._act(entry)
        except Stale:
            return await self.reconcile(name)

    async def _act(self, entry: Entry, trace: str | None = None) -> float | None:
        name, now_s = entry.state.name, self._clock.monotonic()
        outcome = self.fleet.verdict(entry, now_s)
        if not isinstance(outcome, Decision):
            return None
        token = self._leases.token_for(name)
        if token is None:
            return LEASE_LOOK_S
        with span_from(trace, "scale.decide", service=name):
            current = await self._store.write(entry.state, entry.current, outcome, token)
        self.fleet.decided(entry, current, outcome, now_s)
        self.decisions += 1
        log.info("decided", service=name, number=current.number, before=outcome.before, wanted=outcome.wanted,
                 reason=outcome.reason, why=outcome.message)  # fmt: skip
        return None

    async def watch_load(self) -> None:
        """Looks once a second at every service that follows its load."""
        while True:
            self.tick()
            await self._clock.sleep(TICK_S)

    def tick(self) -> None:
        """One look at all loads; wakes the services where something is to be changed."""
        now_s = self._clock.monotonic()
        for entry in list(self.fleet.scaled()):
            outcome = self.fleet.observe(entry, now_s)
            if isinstance(outcome, Decision) and self._leases.token_for(entry.state.name) is not None:
                self.reconciler.wake(entry.state.name)
        self.windows.forget_silent(now_s)

    async def prune(self) -> None:
        """Keeps the journal within its limits."""
        while True:
            try:
                await self._store.prune()
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("journal not pruned; the next round tries again", error=repr(error))
            await self._clock.sleep(PRUNE_S)

    async def _awaited(self) -> list[str]:
        return self.windows.awaited(self._clock.monotonic())

    async def _names(self) -> list[str]:
        return [state.name for state in await self._services.all(self._workspace)]
