"""Brings one service's route to every Envoy: plan → resources → acknowledged → probed → told.

Order: clusters and endpoints first, acknowledged, then the route; where no replica takes traffic any more the other way
round, so that a request is held before it could find nobody. Held requests go on between the two steps, as soon as the
endpoints are acknowledged. A refusal puts the last good resources back and is told once; the next change tries again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from easel_contracts.facts import Cause, RouteState
from easel_kit.clock import Clock
from easel_kit.db import Stale
from easel_kit.leases import Leases
from easel_kit.telemetry import get_logger
from easel_router.decide.snapshot import ServicePlan, problems
from easel_router.envoys import Envoys, NoEnvoy
from easel_router.hold import Holds
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.store import Store, Stored
from easel_router.tokens import Tokens
from easel_router.xds.catalog import Catalog
from easel_router.xds.clusters import grpc_cluster
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import Resources, render
from easel_router.xds.stream import Gone, Refused, Stream

_NO_ENVOY_AGAIN_S = 1.0
_TOKEN_AGAIN_S = 1.0
_LEASE_AGAIN_S = 0.5
"""Another copy holds the lease and will tell; or it has died, and the lease runs out."""

log = get_logger("apply")

Wanted = dict[str, dict[str, str | None]]


class Applier:
    """Applies routes; one service at a time is the reconciler's business."""

    def __init__(
        self, *, known: Known, tokens: Tokens, catalog: Catalog, envoys: Envoys, store: Store, leases: Leases,
        last_good: LastGood, holds: Holds, clock: Clock, probe_secret: str, timeout_s: float,
    ) -> None:  # fmt: skip
        self._known, self._tokens, self._catalog, self._envoys = known, tokens, catalog, envoys
        self._store, self._leases, self._last_good, self._clock = store, leases, last_good, clock
        self._holds = holds
        self._settled: dict[str, ServicePlan] = {}
        """Plans that are live and told, so that a look without news costs no query."""
        self._stored: dict[str, Stored] = {}
        """Rows as we wrote them; another copy's write makes ours Stale, and the row is read again."""
        self._secret, self._timeout_s = probe_secret, timeout_s
        self.progress: dict[str, str] = {}
        """Service → built, sent or acknowledged, while its route is on the way."""
        self.applied: Callable[[ServicePlan, float], None] = lambda plan, took_s: None
        """Called after a plan is live on every Envoy, with the seconds since it was decided (0: it was so before)."""
        self.refused: dict[str, str] = {}
        """Service → reason, while its newest plan is refused."""
        self.apply_ms: deque[float] = deque(maxlen=1000)

    async def reconcile(self, service: str) -> float | None:
        """Brings one service up to date; seconds until it wants to be looked at again, or None."""
        state = self._known.services.get(service)
        if state is None:
            return None
        if state.wanted == "deleted":
            self._settled.pop(service, None)
            self._holds.shut(service)
            return await self._remove(service)
        token_is_new = await self._tokens.ensure(service)
        plan = self._known.plan(service)
        if plan is None:  # no token, or deleted meanwhile
            return _TOKEN_AGAIN_S
        if not plan.serving:
            self._holds.shut(service)
        if self._settled.get(service) == plan:
            return None if token_is_new else _TOKEN_AGAIN_S
        self._holds.changed(service)
        again = await self._apply(plan)
        return again if token_is_new else _TOKEN_AGAIN_S

    def preload(self, plan: ServicePlan, *, routed: bool = True) -> None:
        """Puts a plan into the catalog without waiting: the last good one, at start; of a deleted service no route."""
        self._put_all(plan.service, render(plan, self._secret), routed=routed)

    async def _apply(self, plan: ServicePlan) -> float | None:
        started = self._clock.monotonic()
        before = self._stored.get(plan.service) or await self._store.route(plan.service)
        resources = render(plan, self._secret)
        if wrong := tuple(problems(plan.service, plan)):
            return await self._refuse(plan, resources.hash, before, "; ".join(wrong))
        if before is not None and _same(before, plan, resources.hash):
            if before.state.state == "probed":
                self._put_all(plan.service, resources)
                self._is_live(plan, took_s=0.0)
            return None
        self.progress[plan.service] = "built"
        try:
            async with asyncio.timeout(self._timeout_s):
                envoys = await self._distribute(plan, resources)
        except NoEnvoy:
            return _NO_ENVOY_AGAIN_S
        except Gone:
            return 0.0
        except Refused as refused:
            return await self._refuse(plan, resources.hash, before, str(refused))
        finally:
            self.progress.pop(plan.service, None)
        took_ms = (self._clock.monotonic() - started) * 1000
        return await self._live(plan, resources, before, envoys=envoys, took_ms=took_ms)

    async def _distribute(self, plan: ServicePlan, resources: Resources) -> int:
        self.progress[plan.service] = "sent"
        if plan.hold is not None:
            await self._routed(plan.service, resources)
            return len(await self._reachable(plan.service, resources))
        await self._reachable(plan.service, resources)
        self._holds.opened(plan)
        return len(await self._routed(plan.service, resources))

    async def _reachable(self, service: str, resources: Resources) -> list[Stream]:
        """Clusters and endpoints, acknowledged."""
        return await self._envoys.everywhere(
            {kind: self._put(kind, service, resources) for kind in (CLUSTER, ENDPOINTS)}
        )

    async def _routed(self, service: str, resources: Resources) -> list[Stream]:
        """The route, acknowledged and answering with its hash. An Envoy's workers take things over in the order it
        acknowledged them, so the answer comes after the endpoints too, even where the route is as it was."""
        streams = await self._envoys.everywhere({ROUTE: self._put(ROUTE, service, resources)})
        self.progress[service] = "acknowledged"
        await self._envoys.probed(streams, service, resources.route_hash)
        return streams

    def _is_live(self, plan: ServicePlan, took_s: float) -> None:
        """Everywhere, and told: nothing is left to do until something changes."""
        if plan.serving:
            self._holds.opened(plan)
        self._settled[plan.service] = plan
        self._last_good.put(plan)
        self.applied(plan, took_s)

    def _put_all(self, service: str, resources: Resources, *, routed: bool = True) -> None:
        for kind in (CLUSTER, ENDPOINTS, ROUTE) if routed else (CLUSTER, ENDPOINTS):
            self._put(kind, service, resources)

    def _put(self, kind: str, service: str, resources: Resources) -> dict[str, str | None]:
        names = (service,) if kind == ROUTE else (service, grpc_cluster(service))
        wanted = resources.by_type[kind]
        versions = {name: self._catalog.put(kind, name, wanted.get(name)) for name in names}
        # what the endpoints are of a cluster that is not there is nobody's question
        return {name: v for name, v in versions.items() if v is not None} if kind == ENDPOINTS else versions

    async def _live(
        self, plan: ServicePlan, resources: Resources, before: Stored | None, *, envoys: int, took_ms: float
    ) -> float | None:
        self.refused.pop(plan.service, None)
        self.apply_ms.append(took_ms)
        lease = self._leases.token_for(plan.service)
        if lease is None:
            self._last_good.put(plan)
            return _LEASE_AGAIN_S
        state = _route_state(plan, "probed", resources.hash, envoys=envoys, apply_ms=round(took_ms, 2))
        message = f"{len(plan.serving)} replicas take traffic on {envoys} Envoys, {len(plan.draining)} drain"
        await self._write(state, before, lease, Cause(actor="router", reason="SnapshotProbed", message=message))
        self._is_live(plan, took_ms / 1000)
        return None

    async def _write(self, state: RouteState, before: Stored | None, lease: int, cause: Cause) -> None:
        """Stores and tells; raises Stale where another copy was first, and forgets what it believed of the row."""
        try:
            self._stored[state.service] = await self._store.write(state, before, lease, cause)
        except Stale:
            self._stored.pop(state.service, None)
            raise

    async def _refuse(self, plan: ServicePlan, version: str, before: Stored | None, reason: str) -> float | None:
        """Back to the last good resources; told once per content."""
        log.error("route refused", service=plan.service, reason=reason)
        self.refused[plan.service] = reason
        good = self._last_good.plans.get(plan.service)
        if good is not None and good.uid == plan.uid:
            self.preload(good)
        else:
            self._withdraw(plan.service)
        if _same(before, plan, version):
            return None
        lease = self._leases.token_for(plan.service)
        if lease is None:
            return _LEASE_AGAIN_S
        state = _route_state(plan, "refused", version, refused_reason=reason)
        await self._write(state, before, lease, Cause(actor="router", reason="SnapshotRefused", message=reason))
        return None

    async def _remove(self, service: str) -> float | None:
        """First nothing new; clusters and endpoints stay while a replica may still have a request."""
        before = self._stored.get(service) or await self._store.route(service)
        gone = {ROUTE: {service: self._catalog.put(ROUTE, service, None)}}
        if before is None or before.state.state != "removed":
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._envoys.probed(await self._envoys.everywhere(gone), service, "")
            except NoEnvoy:
                return _NO_ENVOY_AGAIN_S
            except Gone:
                return 0.0
            if not await self._tell_removed(service, before):
                return _LEASE_AGAIN_S
        if self._known.replicas(service):
            if plan := self._last_good.plans.get(service):
                self.applied(all_draining(plan), 0.0)
            return None  # the last replica's end wakes it again
        self._withdraw(service)
        self._last_good.remove(service)
        self.refused.pop(service, None)
        self._known.forget(service)
        self._stored.pop(service, None)
        return None

    async def _tell_removed(self, service: str, before: Stored | None) -> bool:
        lease = self._leases.token_for(service)
        if lease is None:
            return False
        generation = self._known.services[service].generation
        state = RouteState(service=service, generation=generation, state="removed", version="", replicas=())
        cause = Cause(actor="router", reason="ServiceDeleted", message=f"{service} was deleted")
        await self._write(state, before, lease, cause)
        return True

    def _withdraw(self, service: str) -> None:
        self._catalog.put(ROUTE, service, None)
        for kind in (CLUSTER, ENDPOINTS):
            for name in (service, grpc_cluster(service)):
                self._catalog.put(kind, name, None)


def all_draining(plan: ServicePlan) -> ServicePlan:
    """The plan of a route that was removed: every replica only finishes."""
    upstreams = tuple(msgspec.structs.replace(u, draining=True) for u in plan.upstreams)
    return msgspec.structs.replace(plan, upstreams=upstreams)


def _same(before: Stored | None, plan: ServicePlan, version: str) -> bool:
    if before is None:
        return False
    stored = before.state
    return stored.state in ("probed", "refused") and stored.version == version and stored.generation == plan.generation


def _route_state(
    plan: ServicePlan, state: str, version: str, *, envoys: int = 0, apply_ms: float = 0.0, refused_reason: str = ""
) -> RouteState:
    assert state in ("probed", "refused")
    return RouteState(
        service=plan.service,
        generation=plan.generation,
        state="probed" if state == "probed" else "refused",
        version=version,
        replicas=plan.serving,
        draining=plan.draining,
        token_version=plan.token_version,
        holding=plan.hold is not None,
        envoys=envoys,
        refused_reason=refused_reason,
        apply_ms=apply_ms,
    )
