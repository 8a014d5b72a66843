"""What the catalog holds of each service: its own resources, and clusters that a plan left. Decides nothing.

A cluster that a plan does not name any more stays until the plan's route is the only one and nobody is in it
(`retire`): a request that is being retried needs its own cluster.
"""

from __future__ import annotations

from collections.abc import Collection

from easel_router.decide.snapshot import ServicePlan
from easel_router.xds.catalog import Catalog
from easel_router.xds.clusters import every_cluster
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import endpoints_of
from easel_router.xds.scopes import Resources
from easel_router.xds.web import web_scope

Wanted = dict[str, dict[str, str | None]]
"""Type URL → name → version to wait for; None: its removal."""


class Placing:
    """The catalog, service by service."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._led_to: dict[str, frozenset[str]] = {}
        """Service → clusters to which a route may lead that an Envoy has, or is about to get."""

    def clusters(self, plan: ServicePlan, resources: Resources) -> Wanted:
        """Puts those of the plan, to be waited for; what is left of an earlier one gets the replicas of now, as long as
        any are there."""
        service = plan.service
        self._led_to[service] = self._led_to.get(service, frozenset()) | resources.by_type[CLUSTER].keys()
        wanted: Wanted = {}
        for kind in (CLUSTER, ENDPOINTS):
            wanted[kind] = {name: self._catalog.put(kind, name, body) for name, body in resources.by_type[kind].items()}
        others = set(every_cluster(service)) - resources.by_type[CLUSTER].keys() if plan.awake else set()
        for name in sorted(others):
            if self._catalog.get(CLUSTER, name):
                self._catalog.put(ENDPOINTS, name, endpoints_of(plan, name))
        return wanted

    def route(self, service: str, resources: Resources) -> Wanted:
        """Puts the service's scopes."""
        bodies = resources.by_type[ROUTE]
        names = (service, web_scope(service))  # all that a service may have
        return {ROUTE: {name: self._catalog.put(ROUTE, name, bodies.get(name)) for name in names}}

    def without_route(self, service: str, *, taken: bool = False) -> Wanted:
        """Takes its scopes away; `taken`: not the one under its name, which is a group's by now."""
        names = (web_scope(service),) if taken else (service, web_scope(service))
        return {ROUTE: {name: self._catalog.put(ROUTE, name, None) for name in names}}

    def everything(self, plan: ServicePlan, resources: Resources, *, routed: bool = True) -> None:
        """Both, without a word on what to wait for."""
        self.clusters(plan, resources)
        if routed:
            self.route(plan.service, resources)

    def only(self, plan: ServicePlan, resources: Resources) -> bool:
        """The plan's route is the only one now. Says whether clusters are left that are to be emptied."""
        self._led_to[plan.service] = frozenset(resources.by_type[CLUSTER])
        if not plan.awake:  # no replica is left, so nobody can be at one
            self.retire(plan.service, every_cluster(plan.service))
        return bool(self.left(plan.service))

    def back_to(self, plan: ServicePlan, resources: Resources) -> None:
        """The plan's resources and nothing else: what came after it was refused."""
        self._led_to.pop(plan.service, None)
        self.everything(plan, resources)
        self.retire(plan.service, every_cluster(plan.service))

    def left(self, service: str) -> tuple[str, ...]:
        """Clusters of the service that Envoys have, although no route leads to them."""
        led_to = self._led_to.get(service, frozenset())
        return tuple(name for name in every_cluster(service) if name not in led_to and self._catalog.get(CLUSTER, name))

    def retire(self, service: str, names: Collection[str]) -> None:
        """Takes away those of them that are left."""
        for name in set(names) & set(self.left(service)):
            for kind in (CLUSTER, ENDPOINTS):
                self._catalog.put(kind, name, None)

    def nothing(self, service: str, *, taken: bool = False) -> None:
        """Takes away all that the service has; `taken`: see `without_route`."""
        self.without_route(service, taken=taken)
        self._led_to.pop(service, None)
        self.retire(service, every_cluster(service))
