"""easel.v1.Routes: what Envoy does with a service's path, and why."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from easel_contracts.errors import NotFound
from easel_contracts.spec import Mirroring, Split
from easel_kit.clock import Clock
from easel_proto.v1 import common_pb2, routes_pb2, routes_pb2_grpc
from easel_router.apply import Applier
from easel_router.apply_groups import GroupApplier
from easel_router.coldstarts import ColdStarts
from easel_router.decide.explain_group import explained
from easel_router.decide.limits import Limits
from easel_router.decide.snapshot import ServicePlan
from easel_router.envoys import Envoys
from easel_router.hold import Holds
from easel_router.model import Known
from easel_router.store import Store, Stored


class RoutesApi(routes_pb2_grpc.RoutesServicer):
    """Reads only."""

    def __init__(
        self, known: Known, store: Store, applier: Applier, groups: GroupApplier, envoys: Envoys, holds: Holds,
        cold_starts: ColdStarts, clock: Clock,
    ) -> None:  # fmt: skip
        self._known, self._store, self._applier, self._envoys, self._clock = known, store, applier, envoys, clock
        self._groups, self._holds, self._cold_starts = groups, holds, cold_starts

    async def Get(self, request: routes_pb2.GetRouteRequest, context: object) -> routes_pb2.Route:
        """The route, of a group too, as last acknowledged and probed; `state` shows one that is on the way."""
        stored = await self._of(request.name)
        if stored is None:
            return routes_pb2.Route(name=request.name, state=self._applier.progress.get(request.name, "built"))
        state = stored.state
        at = Timestamp()
        at.FromDatetime(stored.at)
        plan = self._known.plan(request.name)
        revision = plan.revision if plan else 0
        return routes_pb2.Route(
            name=request.name, state=self._applier.progress.get(request.name, state.state), version=state.version,
            replicas=state.replicas, draining=state.draining, envoys=len(self._envoys.live()),
            refused_reason=state.refused_reason, applied_time=at, holding=state.holding,
            held=self._holds.held(request.name), expected_wait_s=self._expected_s(plan),
            cold_start_s=self._cold_starts.typical(request.name, revision),
            cold_starts=self._cold_starts.seen(request.name, revision), split_permille=state.split_permille,
        )  # fmt: skip

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why requests go where they go, or nowhere."""
        stored = await self._of(request.name)
        at = Timestamp()
        at.FromDatetime(self._clock.now())
        return common_pb2.Explanation(part="router", lines=self._lines(request.name, stored), at=at)

    async def _of(self, name: str) -> Stored | None:
        if name not in self._known.services and name not in self._known.groups:
            raise NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")
        return await self._store.route(name)

    def _expected_s(self, plan: ServicePlan | None) -> float:
        """Of a request that comes now; 0 where it would not wait, or nothing is known."""
        return (self._holds.expected_s(plan) or 0.0) if plan is not None and plan.hold is not None else 0.0

    def _without_replica(self, plan: ServicePlan) -> common_pb2.Why:
        hold = plan.hold
        if hold is None:
            return _why("NoReadyReplica", plan.without_replica, "requests are answered with 503")
        if hold.hopeless:
            return _why("Hopeless", f"requests are not held but answered with 503: {hold.hopeless}", "")
        if hold.wakes_only:
            return _why("WakesOnly", "requests wake the service and are answered with 503", "")
        return _why(
            "Holding",
            f"no replica takes traffic: {self._holds.held(plan.service)} of at most {hold.max_requests} requests wait, "
            f"each for up to {plan.traffic.keepalive_ms / 1000:g} s",
            "",
        )

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
        if name not in self._known.services:
            lines = explained(name, self._known.group_plan(name), self._groups.refused.get(name, ""))
            return [*made, *(_why(line.code, line.message, line.hint) for line in lines)]
        if name not in self._known.tokens:
            made.append(_why("NoToken", "the service's token is not known yet", "control gives it; is it running?"))
        if progress := self._applier.progress.get(name):
            made.append(_why("OnTheWay", f"a new route is {progress}", ""))
        if plan := self._known.plan(name):
            if plan.unreachable:
                names = ", ".join(plan.unreachable)
                made.append(_why("NetworkNotShared", f"Envoy shares no network with {names}", ""))
            if not plan.serving:
                made.append(self._without_replica(plan))
            if limits := _limits(plan.limits):
                made.append(_why("Limited", limits, "more are answered 429, or 450 where a queue is full"))
            if known := self._cold_starts.typical(name, plan.revision):
                made.append(_why("ColdStart", _cold_start(known, self._cold_starts.seen(name, plan.revision)), ""))
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
            if state.split_permille is not None:
                made.append(_split(state.split_permille, plan.split if plan else None))
            if plan is not None and plan.mirroring is not None:
                made.append(_mirrored(plan.mirroring))
        return made


def _limits(limits: Limits) -> str:
    """What is let through, over all Envoys."""
    tokens = [f"{each.rate.tokens} requests a second with the token {each.token}" for each in limits.tokens]
    kinds = [kind.why for kind in (limits.rate, limits.concurrency, limits.queue) if kind is not None]
    return "at most " + "; ".join([*kinds, *tokens]) if kinds or tokens else ""


def _split(permille: int, split: Split | None) -> common_pb2.Why:
    """The weight that is live; who goes to the candidate whatever the weight, and what keeps a caller on its side."""
    words = f"{permille / 10:g} % of the requests go to the candidate (the new revision), the others to the stable one"
    if split is not None and split.match is not None:
        words += f"; those with {split.match.kind} {split.match.name}={split.match.value} go to the candidate always"
    if split is not None and split.sticky is not None:
        words += f"; those with the same {split.sticky.kind} {split.sticky.name} go the same way"
    return _why("Split", words, "a side without a replica that takes traffic has no weight")


def _mirrored(mirroring: Mirroring) -> common_pb2.Why:
    to = ", ".join(mirroring.targets)
    how = "compared" if mirroring.compare is not None else "thrown away"
    words = f"{mirroring.percent:g} % of the requests are copied to {to}; the answers to copies are {how}"
    return _why("Mirrored", words, "not copied: WebSockets, gRPC, and bodies above 4 MiB or of unknown length")


def _cold_start(known: dict[str, float], seen: int) -> str:
    parts = ", ".join(f"{name} {value:.2f} s" for name, value in known.items() if name != "total" and value >= 0.005)
    return f"a start takes {known['total']:.2f} s ({parts}), the median of the last {seen or 'of an older revision'}"


def _why(code: str, message: str, hint: str) -> common_pb2.Why:
    return common_pb2.Why(code=code, message=message, hint=hint)
