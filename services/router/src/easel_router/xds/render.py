"""A service's plan as Envoy's resources: pure, same plan, same bytes.

Holds every choice about Envoy's behaviour per route (limits, retries, holding); decides nothing about which replicas
there are. Never put a secret anywhere but into the route's filter context, the header match of the router's own routes,
and the copies that go to the router itself.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value, UInt64Value

from easel_router.decide.arms import Arm
from easel_router.decide.holding import MAX_TRIES
from easel_router.decide.snapshot import ServicePlan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds import mirroring
from easel_router.xds.auth import keys
from easel_router.xds.clusters import (
    EJECTED_AFTER,
    arm_cluster,
    cluster,
    endpoints,
    grpc_cluster,
    is_shadow,
    shadow_cluster,
)
from easel_router.xds.limiting import of_service, words
from easel_router.xds.messages import (
    AUTH_FILTER,
    CLUSTER,
    ENDPOINTS,
    EXTENSIONS,
    GO_HEADER,
    HOLD_FILTER,
    PICK_FILTER,
    ROUTE,
    SUBJECT,
    any_of,
    check_service,
    seconds,
    serialised,
)
from easel_router.xds.mirroring import Policies
from easel_router.xds.scopes import Resources, digest, held, left_out, lua, not_held, probe, stamp
from easel_router.xds.splitting import Way, ways
from easel_router.xds.web import render_web, web_scope

_LEAST_IDLE_S = 300

_PRE_SEND = "connect-failure,refused-stream,reset-before-request,retriable-headers"
_SAFE = _PRE_SEND + ",reset,retriable-status-codes"


def render(plan: ServicePlan, probe_secret: str) -> Resources:
    """Clusters and endpoints (not for a service at zero) and the scope of one service."""
    by_type: dict[str, dict[str, bytes]] = {CLUSTER: {}, ENDPOINTS: {}, ROUTE: {}}
    if plan.awake:
        for name, grpc in _clusters(plan).items():
            by_type[CLUSTER][name] = serialised(cluster(plan, name, grpc=grpc))
            by_type[ENDPOINTS][name] = endpoints_of(plan, name)
        for shadow in plan.shadows:
            name = shadow_cluster(plan.service, shadow)
            by_type[CLUSTER][name] = serialised(mirroring.cluster(plan, shadow))
            by_type[ENDPOINTS][name] = endpoints_of(plan, name)
    scope = _scope(plan, probe_secret)
    web = {web_scope(plan.service): serialised(render_web(plan))} if plan.web else {}
    route_hash = digest([serialised(scope), *web.values()])
    stamp(scope, route_hash)
    by_type[ROUTE] = {plan.service: serialised(scope)} | web
    made = digest([body for kind in by_type.values() for body in kind.values()])
    return Resources(by_type=by_type, hash=made, route_hash=route_hash)


def endpoints_of(plan: ServicePlan, name: str) -> bytes:
    """The endpoints of any of a service's clusters, also of one that the plan does not name any more."""
    shadow = is_shadow(name)
    return serialised(endpoints(plan, name) if shadow is None else mirroring.endpoints(plan, shadow))


def _clusters(plan: ServicePlan) -> dict[str, bool]:
    """Those that requests take: name → whether it is the one for gRPC."""
    arms: tuple[Arm, ...] = ("stable",) if plan.split is None else ("stable", "candidate")
    plain = [arm_cluster(plan.service, arm) for arm in arms]
    return dict.fromkeys(plain, False) | (dict.fromkeys(map(grpc_cluster, plain), True) if plan.grpc else {})


def _scope(plan: ServicePlan, probe_secret: str) -> pb.ScopedRouteConfiguration:
    """What is the same for all routes stands once, at the virtual host: each copy costs every Envoy kilobytes, and
    microseconds at its start."""
    told = keys(plan.tokens, web=plan.service if plan.web else "", home=f"/api/predict/{plan.service}")
    if plan.split is not None and plan.split.subject:
        told[SUBJECT] = plan.split.subject
    metadata = _metadata(plan)  # the filter's context does not follow a change of route, this does
    metadata.filter_metadata[AUTH_FILTER].update(told)
    if SUBJECT in told:  # for those who come by way of a group
        metadata.filter_metadata[PICK_FILTER].update({SUBJECT: told[SUBJECT]})
    copies = mirroring.policies(plan, probe_secret)
    routes = [*mirroring.replay_routes(plan, probe_secret), *_routes(plan, copies), probe(plan.service, probe_secret)]
    host = pb.VirtualHost(
        name=plan.service,
        domains=["*"],
        routes=routes,
        typed_per_filter_config={
            AUTH_FILTER: lua(told),
            PICK_FILTER: left_out(),
            HOLD_FILTER: left_out(),
            **of_service(plan.limits),
        },
        metadata=metadata,
        retry_policy=_retry_policy(plan, _before_sent(plan)),
        include_request_attempt_count=True,
        request_headers_to_remove=["x-envoy-external-address"],  # says what x-forwarded-for does, and is to be read
        request_body_buffer_limit=UInt64Value(value=plan.traffic.retry_body_mib << 20),
    )
    return pb.ScopedRouteConfiguration(
        name=plan.service,
        key=pb.ScopedRouteConfiguration.Key(
            fragments=[pb.ScopedRouteConfiguration.Key.Fragment(string_key=plan.service)]
        ),
        route_configuration=pb.RouteConfiguration(
            name=plan.service,
            virtual_hosts=[host],
            validate_clusters=BoolValue(value=False),
            typed_per_filter_config={HOLD_FILTER: not_held()},
        ),
    )


def _routes(plan: ServicePlan, copies: Policies) -> list[pb.Route]:
    """In order: gRPC (every call is a POST), what may be repeated, the rest."""
    before_sent = _before_sent(plan)
    routes = _grpc_routes(plan) if plan.grpc else []
    for headers in _repeatable(plan.traffic.retry):
        routes += _pair(plan, "safe", headers, copies)
    return routes + _pair(plan, before_sent, [], copies)


def _grpc_routes(plan: ServicePlan) -> list[pb.Route]:
    """One prefix is enough: a method always follows the service."""
    match = pb.RouteMatch(prefix=f"/api/predict/{plan.service}/", grpc=pb.RouteMatch.GrpcRouteMatchOptions())
    return [_route(plan, way, _before_sent(plan)) for way in ways(plan, match, grpc=True)]


def _before_sent(plan: ServicePlan) -> str:
    """How what may not be repeated is retried; most requests are of this kind."""
    return "off" if plan.traffic.retry == "off" else "pre_send"


@cache
def _repeatable(retry: str) -> list[list[pb.HeaderMatcher]]:
    """Which requests may be repeated after they were sent: one of these lists matches. Streams never: long silences are
    theirs, and the time limit of such a route would cut them."""
    not_methods = [
        pb.HeaderMatcher(name=":method", string_match=pb.StringMatcher(exact=method), invert_match=True)
        for method in ("POST", "PATCH", "CONNECT")
    ]
    keyed = [pb.HeaderMatcher(name="idempotency-key", present_match=True)]
    kinds: dict[str, list[list[pb.HeaderMatcher]]] = {"off": [], "pre_send": [not_methods, keyed], "safe": [[]]}
    return [[*kind, *_no_stream()] for kind in kinds[retry]]


def _no_stream() -> list[pb.HeaderMatcher]:
    """Neither a WebSocket nor an event stream."""
    events = pb.StringMatcher(contains="text/event-stream")
    return [
        pb.HeaderMatcher(name="upgrade", present_match=True, invert_match=True),
        pb.HeaderMatcher(name="accept", string_match=events, invert_match=True, treat_missing_header_as_empty=True),
    ]


def _pair(plan: ServicePlan, retry: str, headers: list[pb.HeaderMatcher], copies: Policies) -> list[pb.Route]:
    """`/api/predict/x/...` and `/api/predict/x`: two plain routes cost less than one regular expression."""
    base = f"/api/predict/{plan.service}"
    made = []
    for more, to in mirroring.kinds(copies):
        told = [*headers, *more]
        for match in (pb.RouteMatch(prefix=base + "/", headers=told), pb.RouteMatch(path=base, headers=told)):
            made += [_route(plan, way, retry, to) for way in ways(plan, match, grpc=False)]
    return made


def _route(plan: ServicePlan, way: Way, retry: str, copies: Policies = ()) -> pb.Route:
    return pb.Route(
        name=plan.service,
        match=way.match,
        route=_action(plan, way.to, retry, copies),
        typed_per_filter_config={HOLD_FILTER: _held(plan, retry)} if plan.hold is not None else {},
    )


def _held(plan: ServicePlan, retry: str) -> Any:
    """Switches the hold filter on. The router answers before the limit; Envoy's own clock is for a router that is away.

    The rest of the limit goes with the request only where each try has its own clock (see `_action`).
    """
    limit_s = plan.traffic.keepalive_ms / 1000
    settings = pb.CheckSettings(
        context_extensions={"service": plan.service, "clock": "idle" if retry == "safe" else "try"},
        grpc_service=check_service(limit_s + 1),
    )
    return held(settings)


def _action(plan: ServicePlan, to: pb.RouteAction, retry: str, copies: Policies) -> pb.RouteAction:
    """The time limit to the first byte, and the limit on silence after it.

    Envoy has no such limit as one setting. `per_try_timeout` ends with the answer's first byte, but a try that ran
    into it is retried like any reset, with a new clock, where resets are retried. There the limit is the stream's idle
    limit instead: one clock over all tries, 408 by itself, and such an answer may then pause for as long too.
    """
    limit_s = plan.traffic.keepalive_ms / 1000
    action = pb.RouteAction(
        request_mirror_policies=copies,
        prefix_rewrite="/",
        timeout=seconds(0),  # a stream that produces is not cut
        idle_timeout=seconds(limit_s if retry == "safe" else max(limit_s + 5, _LEAST_IDLE_S)),
    )
    action.MergeFrom(to)
    if retry != _before_sent(plan):  # that one is the virtual host's
        action.retry_policy.CopyFrom(_retry_policy(plan, retry))
    return action


_TRIES_OF_EACH = EJECTED_AFTER + 1
"""A dead replica refuses at once, so it has the fewest requests and the balancer, which takes the least loaded of all,
offers it again whatever the predicate below says. A request's own tries must be enough to have it ejected before the
hold listener is tried, which needs the router."""
_TRIES_OF_ARM = 4
"""In a split the living of the other side come first, so fewer are enough, and the tries last for both sides, the hold
listener, and the first side again."""


def _retry_policy(plan: ServicePlan, retry: str) -> pb.RetryPolicy:
    """The replicas are tried, then the hold listener, then the replicas again; with one replica both in turn. In a
    split the replicas of the other side are tried before the hold listener.

    Off means that no try follows one at a replica; what waited at the hold listener has not been at any."""
    policy = pb.RetryPolicy(
        retry_on={"safe": _SAFE, "pre_send": _PRE_SEND, "off": "retriable-headers"}[retry],
        num_retries=UInt32Value(value=MAX_TRIES - 1),
        retriable_headers=[pb.HeaderMatcher(name=GO_HEADER, present_match=True)],
        retry_priority=_next_priority(_tries(plan)),
        retry_host_predicate=[_previous_hosts()],
        host_selection_retry_max_attempts=20,
        retry_back_off=pb.RetryPolicy.RetryBackOff(base_interval=seconds(0.005), max_interval=seconds(0.25)),
    )
    if retry == "safe":
        policy.retriable_status_codes.append(503)
    else:
        policy.per_try_timeout.CopyFrom(seconds(plan.traffic.keepalive_ms / 1000))
    return policy


def _tries(plan: ServicePlan) -> int:
    """Of one request, until it goes on to the next priority."""
    arms = Counter(u.arm if plan.split else "stable" for u in plan.upstreams if not u.draining)
    if all(replicas <= 1 for replicas in arms.values()):
        return 1
    return _TRIES_OF_ARM if plan.split else _TRIES_OF_EACH


@cache
def _next_priority(after_tries: int) -> pb.RetryPolicy.RetryPriority:
    return pb.RetryPolicy.RetryPriority(
        name="envoy.retry_priorities.previous_priorities",
        typed_config=any_of(_PREVIOUS_PRIORITIES, pb.PreviousPriorities(update_frequency=after_tries)),
    )


@cache
def _previous_hosts() -> pb.RetryPolicy.RetryHostPredicate:
    return pb.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any(type_url=_PREVIOUS_HOSTS)
    )


def _metadata(plan: ServicePlan) -> pb.Metadata:
    """What local replies to this service's requests say."""
    made = pb.Metadata()
    made.filter_metadata["easel"].update(
        {
            "limit_s": f"{plan.traffic.keepalive_ms / 1000:g}",
            "without_replica": plan.without_replica,
            "service": plan.service,
            **words(plan.limits),
        }
    )
    return made


_PREVIOUS_HOSTS = EXTENSIONS + "retry.host.previous_hosts.v3.PreviousHostsPredicate"
_PREVIOUS_PRIORITIES = EXTENSIONS + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
