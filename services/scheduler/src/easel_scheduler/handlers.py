"""Facts of others: remembered, then somebody is woken. Each may come twice, late or never."""

from __future__ import annotations

from collections.abc import Callable

from easel_contracts import facts
from easel_contracts.facts import Fact, RouteState, ScaleState, ServiceState, TrafficState
from easel_kit.projection import Projection
from easel_kit.telemetry import current_traceparent
from easel_scheduler.planner import Planner


class Handlers:
    """One method per entity; see subscriptions.py."""

    def __init__(self, planner: Planner, wake: Callable[[str, str], None], services: Projection[ServiceState],
                 scales: Projection[ScaleState], routes: Projection[RouteState],
                 traffic: Projection[TrafficState]) -> None:  # fmt: skip
        self._planner, self._wake = planner, wake
        self._services, self._scales, self._routes, self._traffic = services, scales, routes, traffic

    async def on_service(self, fact: Fact) -> None:
        """What control wants of a service."""
        if await self._services.apply(fact) and (trace := current_traceparent() or fact.cause.traceparent):
            self._planner.traces[fact.key] = trace
        if fact.verb == "deleted":
            self._planner.traces.pop(fact.key, None)
        self._wake("plans", fact.key)

    async def on_scale(self, fact: Fact) -> None:
        """How many replicas the autoscaler wants."""
        await self._scales.apply(fact)
        self._wake("plans", fact.key)

    async def on_route(self, fact: Fact) -> None:
        """Which replicas take traffic. A refused route changed nothing on any Envoy, so the applied one still holds."""
        if fact.verb == "refused":
            return
        await self._routes.apply(fact)
        self._wake("plans", fact.key)
        for replica in facts.state_of(fact, RouteState).draining:
            self._wake("lives", replica)

    async def on_traffic(self, fact: Fact) -> None:
        """A replica has no request left since it was taken out of traffic."""
        await self._traffic.apply(fact)
        self._wake("lives", facts.state_of(fact, TrafficState).replica)
