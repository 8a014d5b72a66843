"""Tells `traffic.drained` once no Envoy has a request left at a replica that drains, is isolated or is to be restarted.

Only after the route that marks it DRAINING is live everywhere; an Envoy that counts and has not reported is waited for.
"""

from __future__ import annotations

import asyncio

from easel_kit.leases import Leases
from easel_router.decide.snapshot import ServicePlan, Upstream, finishes
from easel_router.envoys import Envoys
from easel_router.model import Known
from easel_router.store import Store
from easel_router.xds.clusters import every_cluster
from easel_router.xds.load import Loads

_LEASE_AGAIN_S = 0.5
_ROUND_S = 10.0
"""Longest time for one look at all Envoys; then it begins anew with those that count by then."""


class Drains:
    """Watches replicas that drain."""

    def __init__(self, known: Known, loads: Loads, envoys: Envoys, store: Store, leases: Leases) -> None:
        self._known, self._loads, self._envoys, self._store, self._leases = known, loads, envoys, store, leases
        self._live: dict[str, ServicePlan] = {}

    def applied(self, plan: ServicePlan) -> list[str]:
        """A plan is live everywhere; which replicas to look at."""
        self._live[plan.service] = plan
        return [replica.id for replica in self._known.replicas(plan.service) if finishes(replica)]

    async def keys(self) -> list[str]:
        """Replicas that only finish what they have."""
        return self._known.finishing()

    async def reconcile(self, replica: str) -> float | None:
        """Watches one replica until it has no request left."""
        state = self._known.replica(replica)
        if state is None or not finishes(state):
            return None
        plan = self._live.get(state.service)
        upstream = next((u for u in plan.upstreams if u.replica == replica), None) if plan else None
        if plan is None or (upstream is not None and not upstream.draining):
            return None  # woken again when its route is live
        if await self._store.is_drained(replica, state.drain_number):
            return None
        if self._leases.token_for(state.service) is None:
            return _LEASE_AGAIN_S
        # one without an upstream never was in the route: nothing can be in flight
        if upstream is not None and not await self._empty(plan.service, upstream):
            return None  # it is back in traffic
        await self._store.drained(plan.service, replica, plan.generation, state.drain_number)
        return None

    async def _empty(self, service: str, upstream: Upstream) -> bool:
        """Waits until nobody has a request there; False: it does not drain any more."""
        clusters = every_cluster(service)
        address = (upstream.ip, upstream.port)
        with self._loads.watching(clusters):
            while True:
                state = self._known.replica(upstream.replica)
                if state is None or not finishes(state):
                    return state is None
                waits = (self._loads.next_in_flight(envoy, clusters, address) for envoy in self._envoys.live())
                try:
                    async with asyncio.timeout(_ROUND_S):
                        found = await asyncio.gather(*waits)
                except TimeoutError:
                    continue
                if found and not any(found):
                    return True
                if not found:
                    await asyncio.sleep(1.0)  # no Envoy counts: nobody knows, and unknown is not zero
