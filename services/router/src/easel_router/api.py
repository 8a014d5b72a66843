"""easel.v1.Routes: what Envoy does with a service's path, and why."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from easel_contracts.errors import NotFound
from easel_kit.clock import Clock
from easel_proto.v1 import common_pb2, routes_pb2, routes_pb2_grpc
from easel_router.apply import Applier
from easel_router.envoys import Envoys
from easel_router.model import Known
from easel_router.store import Store, Stored


class RoutesApi(routes_pb2_grpc.RoutesServicer):
    """Reads only."""

    def __init__(self, known: Known, store: Store, applier: Applier, envoys: Envoys, clock: Clock) -> None:
        self._known, self._store, self._applier, self._envoys, self._clock = known, store, applier, envoys, clock

    async def Get(self, request: routes_pb2.GetRouteRequest, context: object) -> routes_pb2.Route:
        """The route as last acknowledged and probed; `state` shows one that is on the way."""
        stored = await self._of(request.name)
        if stored is None:
            return routes_pb2.Route(name=request.name, state=self._applier.progress.get(request.name, "built"))
        state = stored.state
        at = Timestamp()
        at.FromDatetime(stored.at)
        return routes_pb2.Route(
            name=request.name, state=self._applier.progress.get(request.name, state.state), version=state.version,
            replicas=state.replicas, draining=state.draining, envoys=len(self._envoys.live()),
            refused_reason=state.refused_reason, applied_time=at,
        )  # fmt: skip

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why requests go where they go, or nowhere."""
        stored = await self._of(request.name)
        at = Timestamp()
        at.FromDatetime(self._clock.now())
        return common_pb2.Explanation(part="router", lines=self._lines(request.name, stored), at=at)

    async def _of(self, name: str) -> Stored | None:
        if name not in self._known.services:
            raise NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")
        return await self._store.route(name)

    def _lines(self, name: str, stored: Stored | None) -> list[common_pb2.Why]:
        made = []
        if name in self._applier.refused:
            made.append(_why("RouteRefused", self._applier.refused[name], "the last good route stays in use"))
        live = self._envoys.live()
        lost = [envoy for envoy, stream in live.items() if stream is None]
        if not live:
            made.append(_why("NoEnvoy", "no Envoy is connected to the router", "`easel status` shows the processes"))
        if lost:
            made.append(_why("EnvoyLost", f"waiting for Envoy {', '.join(lost)} to come back", ""))
        if name not in self._known.tokens:
            made.append(_why("NoToken", "the service's token is not known yet", "control gives it; is it running?"))
        if progress := self._applier.progress.get(name):
            made.append(_why("OnTheWay", f"a new route is {progress}", ""))
        if plan := self._known.plan(name):
            if plan.unreachable:
                names = ", ".join(plan.unreachable)
                made.append(_why("NetworkNotShared", f"Envoy shares no network with {names}", ""))
            if not plan.serving:
                made.append(_why("NoReadyReplica", plan.without_replica, "requests are answered with 503"))
        if stored is not None and stored.state.state == "probed":
            state = stored.state
            made.append(
                _why(
                    "Routed",
                    f"{len(state.replicas)} replicas take traffic and {len(state.draining)} drain, on {state.envoys}"
                    f" Envoys since {stored.at:%H:%M:%S} UTC (acknowledged and probed in {state.apply_ms:.0f} ms)",
                    "",
                )
            )
        return made


def _why(code: str, message: str, hint: str) -> common_pb2.Why:
    return common_pb2.Why(code=code, message=message, hint=hint)
