"""Facts and metrics in, decisions out: load → decide → guarded write. What is decided stands in `decide/`.

A fact wakes its service's reconcile; a tick a second looks at services that follow their load, in memory alone, and
wakes those where something is to be changed. So a quiet service costs no query.
"""

from __future__ import annotations

import asyncpg
import msgspec

from easel_autoscaler.decide.decision import Decision
from easel_autoscaler.model import Fleet, verdict
from easel_autoscaler.store import Store
from easel_autoscaler.windows import Windows
from easel_contracts.facts import Fact, ServiceState
from easel_contracts.metrics import ServiceMetrics
from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
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

    async def reconcile(self, name: str) -> float | None:
        """Decides for one service, and stores and tells what changed."""
        trace = self._traces.pop(name, None)
        state = await self._services.get(name, self._workspace)
        if state is None or state.wanted == "deleted":
            self.fleet.forget(name)
            return None
        entry = self.fleet.see(state, await self._store.current(name))
        now_s = self._clock.monotonic()
        outcome = verdict(entry, now_s)
        if not isinstance(outcome, Decision):
            return None
        token = self._leases.token_for(name)
        if token is None:
            return LEASE_LOOK_S
        with span_from(trace, "scale.decide", service=name):
            current = await self._store.write(state, entry.current, outcome, token)
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

    async def _names(self) -> list[str]:
        return [state.name for state in await self._services.all(self._workspace)]
