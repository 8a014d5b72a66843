"""Brings one service's route to every Envoy: plan → resources → acknowledged → probed → told.

Order: clusters and endpoints first, acknowledged, then the route; where no replica takes traffic any more the other way
round, so that a request is held before it could find nobody. Held requests go on between the two steps, as soon as the
endpoints are acknowledged. Clusters that a plan does not name any more outlive its route: `retire` takes them out when
they are empty. A refusal puts the last good resources back and is told once; the next change tries again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from easel_contracts.facts import Cause, RouteState
from easel_kit.clock import Clock
from easel_kit.leases import Leases
from easel_kit.telemetry import get_logger
from easel_router.decide.snapshot import ServicePlan, problems
from easel_router.envoys import Envoys, NoEnvoy
from easel_router.hold import Holds
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.placing import Placing
from easel_router.store import Stored
from easel_router.tokens import Tokens
from easel_router.told import Told, is_told
from easel_router.xds.catalog import Catalog
from easel_router.xds.refusals import Refused
from easel_router.xds.render import render
from easel_router.xds.scopes import Resources
from easel_router.xds.stream import Gone, Stream

_NO_ENVOY_AGAIN_S = 1.0
_TOKEN_AGAIN_S = 1.0
_LEASE_AGAIN_S = 0.5
"""Another copy holds the lease and will tell; or it has died, and the lease runs out."""

log = get_logger("apply")


class Applier:
    """Applies routes; one service at a time is the reconciler's business."""

    def __init__(
        self, *, known: Known, tokens: Tokens, catalog: Catalog, envoys: Envoys, told: Told, leases: Leases,
        last_good: LastGood, holds: Holds, clock: Clock, probe_secret: str, timeout_s: float,
    ) -> None:  # fmt: skip
        self._known, self._tokens, self._envoys = known, tokens, envoys
        self.placing = Placing(catalog)
        self._told, self._leases, self._last_good, self._clock = told, leases, last_good, clock
        self._holds = holds
        self._settled: dict[str, ServicePlan] = {}
        """Plans that are live and told, so that a look without news costs no query."""
        self._secret, self._timeout_s = probe_secret, timeout_s
        self.progress: dict[str, str] = {}
        """Service → built, sent or acknowledged, while its route is on the way."""
        self.applied: Callable[[ServicePlan, float], None] = lambda plan, took_s: None
        """Called after a plan is live on every Envoy, with the seconds since it was decided (0: it was so before)."""
        self.aside: Callable[[str], Awaitable[None]] = _nobody
        """Called before a service's route changes that can answer no more: groups send its requests to others."""
        self.taken: Callable[[str], bool] = lambda name: False
        """Whether a name's scope and row are a group's: it may have the name of a service that was deleted."""
        self.refused: dict[str, str] = {}
        """Service → reason, while its newest plan is refused."""
        self.emptying: Callable[[str], None] = lambda service: None
        """Called with a service of which clusters are left that no route leads to any more."""
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
        self.placing.everything(plan, render(plan, self._secret), routed=routed)

    async def _apply(self, plan: ServicePlan) -> float | None:
        started = self._clock.monotonic()
        before = await self._told.of(plan.service)
        resources = render(plan, self._secret)
        if wrong := tuple(problems(plan.service, plan)):
            return await self._refuse(plan, resources.hash, before, "; ".join(wrong))
        if before is not None and is_told(before, plan.generation, resources.hash):
            if before.state.state == "probed":
                self.placing.everything(plan, resources)
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
        if not plan.serving:
            await self.aside(plan.service)
        if plan.hold is not None:
            await self._routed(plan.service, resources)
            streams = await self._reachable(plan, resources)
        else:
            await self._reachable(plan, resources)
            self._holds.opened(plan)
            streams = await self._routed(plan.service, resources)
        if self.placing.only(plan, resources):
            self.emptying(plan.service)
        return len(streams)

    async def _reachable(self, plan: ServicePlan, resources: Resources) -> list[Stream]:
        """Clusters and endpoints, acknowledged."""
        return await self._envoys.everywhere(self.placing.clusters(plan, resources))

    async def _routed(self, service: str, resources: Resources) -> list[Stream]:
        """The route, acknowledged and answering with its hash. An Envoy's workers take things over in the order it
        acknowledged them, so the answer comes after the endpoints too, even where the route is as it was."""
        streams = await self._envoys.everywhere(self.placing.route(service, resources))
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
        if plan.split is not None:
            message += f"; {plan.split.weight_permille / 10:g} % of the requests go to the candidate"
        await self._told.tell(state, before, lease, Cause(actor="router", reason="SnapshotProbed", message=message))
        self._is_live(plan, took_ms / 1000)
        return None

    async def _refuse(self, plan: ServicePlan, version: str, before: Stored | None, reason: str) -> float | None:
        """Back to the last good resources; told once per content."""
        log.error("route refused", service=plan.service, reason=reason)
        self.refused[plan.service] = reason
        good = self._last_good.plans.get(plan.service)
        if good is not None and good.uid == plan.uid:
            self.placing.back_to(good, render(good, self._secret))
        else:
            self.placing.nothing(plan.service)
        if is_told(before, plan.generation, version):
            return None
        lease = self._leases.token_for(plan.service)
        if lease is None:
            return _LEASE_AGAIN_S
        state = _route_state(plan, "refused", version, refused_reason=reason)
        await self._told.tell(state, before, lease, Cause(actor="router", reason="SnapshotRefused", message=reason))
        return None

    async def _remove(self, service: str) -> float | None:
        """First nothing new; clusters and endpoints stay while a replica may still have a request."""
        before = await self._told.of(service)
        told = before is not None and before.state.state == "removed"
        if not told:
            await self.aside(service)
        gone = self.placing.without_route(service, taken=self.taken(service))
        if not told and not self.taken(service):
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
        self.placing.nothing(service, taken=self.taken(service))
        self._last_good.remove(service)
        self.refused.pop(service, None)
        self._known.forget(service)
        self._told.forget(service)
        return None

    async def _tell_removed(self, service: str, before: Stored | None) -> bool:
        lease = self._leases.token_for(service)
        if lease is None:
            return False
        generation = self._known.services[service].generation
        state = RouteState(service=service, generation=generation, state="removed", version="", replicas=())
        cause = Cause(actor="router", reason="ServiceDeleted", message=f"{service} was deleted")
        await self._told.tell(state, before, lease, cause)
        return True


async def _nobody(service: str) -> None:
    """No group is asked."""


def all_draining(plan: ServicePlan) -> ServicePlan:
    """The plan of a route that was removed: every replica only finishes."""
    upstreams = tuple(msgspec.structs.replace(u, draining=True) for u in plan.upstreams)
    return msgspec.structs.replace(plan, upstreams=upstreams)


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
        split_permille=plan.split.weight_permille if plan.split else None,
    )
