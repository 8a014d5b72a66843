"""A service's plan as Envoy's resources: pure, same plan, same bytes.

Holds every choice about Envoy's behaviour per service (limits, retries, ejection); decides nothing about which
replicas there are. Never put a secret anywhere but into the route's filter context and the probe's header match.
"""

from __future__ import annotations

import hashlib
from functools import cache

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value, UInt64Value
from msgspec import Struct

from easel_router.decide.snapshot import ServicePlan
from easel_router.xds import envoy_pb2 as pb

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"

AUTH_FILTER = "easel.auth"
PROBE_PATH = "/.easel/probe/"
PROBE_HEADER = "x-easel-probe"
HASH_HEADER = "x-easel-route"

_LEAST_IDLE_S = 300
_UPSTREAM_IDLE_S = 4
"""Below the keep-alive of common model servers (uvicorn: 5 s), so that Envoy is the one who closes."""

_PRE_SEND = "connect-failure,refused-stream,reset-before-request"
_SAFE = _PRE_SEND + ",reset,retriable-status-codes"


class Resources(Struct, frozen=True, kw_only=True):
    """One service's resources by type URL and name: serialised Any bodies, ready to send."""

    by_type: dict[str, dict[str, bytes]]
    hash: str
    """Of all of them; the probe answers it."""


def render(plan: ServicePlan, probe_secret: str) -> Resources:
    """Clusters and endpoints (only where there are replicas) and the scope of one service."""
    by_type: dict[str, dict[str, bytes]] = {CLUSTER: {}, ENDPOINTS: {}, ROUTE: {}}
    if plan.upstreams:
        for name, grpc in ((plan.service, False), (grpc_cluster(plan.service), True)):
            by_type[CLUSTER][name] = _bytes(_cluster(plan, name, grpc=grpc))
            by_type[ENDPOINTS][name] = _bytes(_endpoints(plan, name))
    scope = _scope(plan, probe_secret, "")
    digest = _digest([*by_type[CLUSTER].values(), *by_type[ENDPOINTS].values(), _bytes(scope)])
    by_type[ROUTE][plan.service] = _bytes(_scope(plan, probe_secret, digest))
    return Resources(by_type=by_type, hash=digest)


def grpc_cluster(service: str) -> str:
    """The cluster that speaks HTTP/2 to the same replicas; gRPC needs it, plain model servers do not know it."""
    return f"{service}|grpc"


def any_of(type_url: str, message: Message) -> Any:
    """`message` under Envoy's own name for it."""
    return Any(type_url=type_url, value=_bytes(message))


def seconds(value: float) -> Duration:
    """A Duration of `value` seconds."""
    made = Duration()
    made.FromNanoseconds(round(value * 1e9))
    return made


def ads() -> pb.ConfigSource:
    """This stream is the source."""
    return pb.ConfigSource(
        ads=pb.AggregatedConfigSource(), resource_api_version=pb.V3, initial_fetch_timeout=seconds(0)
    )


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _digest(parts: list[bytes]) -> str:
    made = hashlib.blake2b(digest_size=12)
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


# --- routes


def _scope(plan: ServicePlan, probe_secret: str, digest: str) -> pb.ScopedRouteConfiguration:
    context = pb.LuaPerRoute()
    context.filter_context.update({"token": plan.token.value})
    secret = pb.Metadata()  # the filter's context does not follow a change of route, this does
    secret.filter_metadata[AUTH_FILTER].update({"token": plan.token.value})
    host = pb.VirtualHost(
        name=plan.service,
        domains=["*"],
        routes=[*_routes(plan), _probe(plan.service, probe_secret, digest)],
        typed_per_filter_config={AUTH_FILTER: any_of(_LUA_PER_ROUTE, context)},
        metadata=secret,
        request_body_buffer_limit=UInt64Value(value=plan.traffic.retry_body_mib << 20),
    )
    return pb.ScopedRouteConfiguration(
        name=plan.service,
        key=pb.ScopedRouteConfiguration.Key(
            fragments=[pb.ScopedRouteConfiguration.Key.Fragment(string_key=plan.service)]
        ),
        route_configuration=pb.RouteConfiguration(
            name=plan.service, virtual_hosts=[host], validate_clusters=BoolValue(value=False)
        ),
    )


def _routes(plan: ServicePlan) -> list[pb.Route]:
    """In order: gRPC (every call is a POST), what may only be repeated before it was sent, streams, the rest."""
    wished = plan.traffic.retry
    before_sent = "off" if wished == "off" else "pre_send"
    routes = _pair(plan, wished if wished != "safe" else "pre_send", [], grpc=True)
    if wished == "pre_send":
        routes += _pair(plan, "pre_send", _may_not_be_repeated())
    for headers in _streams():
        routes += _pair(plan, before_sent, headers)
    return routes + _pair(plan, "off" if wished == "off" else "safe", [])


def _may_not_be_repeated() -> list[pb.HeaderMatcher]:
    method = pb.StringMatcher(safe_regex=pb.RegexMatcher(regex="POST|PATCH|CONNECT"))
    return [
        pb.HeaderMatcher(name=":method", string_match=method),
        pb.HeaderMatcher(name="idempotency-key", present_match=True, invert_match=True),
    ]


def _streams() -> list[list[pb.HeaderMatcher]]:
    """WebSockets and event streams: long silences are theirs."""
    events = pb.StringMatcher(contains="text/event-stream")
    return [
        [pb.HeaderMatcher(name="upgrade", present_match=True)],
        [pb.HeaderMatcher(name="accept", string_match=events)],
    ]


def _pair(plan: ServicePlan, retry: str, headers: list[pb.HeaderMatcher], *, grpc: bool = False) -> list[pb.Route]:
    """`/api/predict/x` and `/api/predict/x/...`: two plain routes cost less than one regular expression."""
    base = f"/api/predict/{plan.service}"
    match_grpc = pb.RouteMatch.GrpcRouteMatchOptions() if grpc else None
    matches = [
        pb.RouteMatch(prefix=base + "/", headers=headers, grpc=match_grpc),
        pb.RouteMatch(path=base, headers=headers, grpc=match_grpc),
    ]
    action = _action(plan, grpc_cluster(plan.service) if grpc else plan.service, retry)
    metadata = _metadata(plan)
    return [pb.Route(name=plan.service, match=match, route=action, metadata=metadata) for match in matches]


def _action(plan: ServicePlan, cluster: str, retry: str) -> pb.RouteAction:
    """The time limit to the first byte, and the limit on silence after it.

    Envoy has no such limit as one setting. `per_try_timeout` ends with the answer's first byte, but a try that ran
    into it is retried like any reset, with a new clock, where resets are retried. There the limit is the stream's idle
    limit instead: one clock over all tries, 408 by itself, and such an answer may then pause for as long too.
    """
    limit_s = plan.traffic.keepalive_ms / 1000
    action = pb.RouteAction(
        cluster=cluster,
        prefix_rewrite="/",
        timeout=seconds(0),  # a stream that produces is not cut
        idle_timeout=seconds(limit_s if retry == "safe" else max(limit_s + 5, _LEAST_IDLE_S)),
        retry_policy=_retry_policy(retry),
    )
    if retry != "safe":
        action.retry_policy.per_try_timeout.CopyFrom(seconds(limit_s))
    return action


def _retry_policy(retry: str) -> pb.RetryPolicy:
    if retry == "off":
        return pb.RetryPolicy(num_retries=UInt32Value(value=0))
    policy = pb.RetryPolicy(
        retry_on=_SAFE if retry == "safe" else _PRE_SEND,
        num_retries=UInt32Value(value=_RETRIES),
        retry_host_predicate=[_previous_hosts()],
        host_selection_retry_max_attempts=20,
        retry_back_off=pb.RetryPolicy.RetryBackOff(base_interval=seconds(0.005), max_interval=seconds(0.25)),
    )
    if retry == "safe":
        policy.retriable_status_codes.append(503)
    return policy


_EJECTED_AFTER = 5
"""Failures in a row after which a replica is ejected for a while."""
_RETRIES = _EJECTED_AFTER + 1
"""A dead replica refuses at once, so it has the fewest requests and the balancer, which takes the least loaded of all,
offers it again whatever the predicate below says. A request's own tries must be enough to have it ejected."""


@cache
def _previous_hosts() -> pb.RetryPolicy.RetryHostPredicate:
    return pb.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any(type_url=_PREVIOUS_HOSTS)
    )


def _metadata(plan: ServicePlan) -> pb.Metadata:
    """What local replies of this route say."""
    made = pb.Metadata()
    made.filter_metadata["easel"].update(
        {
            "limit_s": f"{plan.traffic.keepalive_ms / 1000:g}",
            "without_replica": plan.without_replica,
            "service": plan.service,
        }
    )
    return made


def _probe(service: str, secret: str, digest: str) -> pb.Route:
    """Answers which snapshot is live here, to the router alone: others get the same 404 as for any unknown path."""
    return pb.Route(
        name="probe",
        match=pb.RouteMatch(
            path=PROBE_PATH + service,
            headers=[pb.HeaderMatcher(name=PROBE_HEADER, string_match=pb.StringMatcher(exact=secret))],
        ),
        direct_response=pb.DirectResponseAction(status=204),
        response_headers_to_add=[
            pb.HeaderValueOption(header=pb.HeaderValue(key=HASH_HEADER, value=digest or "0" * 24))
        ],
        typed_per_filter_config={AUTH_FILTER: any_of(_LUA_PER_ROUTE, pb.LuaPerRoute(disabled=True))},
    )


# --- clusters and endpoints


def _cluster(plan: ServicePlan, name: str, *, grpc: bool) -> pb.Cluster:
    cluster = pb.Cluster(
        name=name,
        alt_stat_name=plan.service,  # both clusters of a service count as one
        type=pb.Cluster.EDS,
        eds_cluster_config=pb.Cluster.EdsClusterConfig(eds_config=ads()),
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=UInt32Value(value=1 << 20),
        ignore_health_on_host_removal=True,
        common_lb_config=pb.Cluster.CommonLbConfig(
            healthy_panic_threshold=pb.Percent(value=0), update_merge_window=seconds(0)
        ),
        load_balancing_policy=_least_request(),
        circuit_breakers=_breakers(),
        outlier_detection=_ejection(),
    )
    protocol = pb.UpstreamHttpProtocolOptions.ExplicitHttpConfig()
    if grpc:
        protocol.http2_protocol_options.SetInParent()
    else:
        protocol.http_protocol_options.SetInParent()
    options = pb.UpstreamHttpProtocolOptions(
        common_http_protocol_options=pb.HttpProtocolOptions(idle_timeout=seconds(_UPSTREAM_IDLE_S)),
        explicit_http_config=protocol,
    )
    cluster.typed_extension_protocol_options[_OPTIONS_KEY].CopyFrom(any_of(_HTTP_OPTIONS, options))
    return cluster


@cache
def _least_request() -> pb.LoadBalancingPolicy:
    """The least loaded of all: two random choices out of few replicas are often the same one."""
    policy = pb.TypedExtensionConfig(
        name="envoy.load_balancing_policies.least_request",
        typed_config=any_of(_LEAST_REQUEST, pb.LeastRequest(selection_method=pb.LeastRequest.FULL_SCAN)),
    )
    return pb.LoadBalancingPolicy(policies=[pb.LoadBalancingPolicy.Policy(typed_extension_config=policy)])


@cache
def _breakers() -> pb.CircuitBreakers:
    """A retry waiting in back-off counts against the budget: near the defaults a third of the retries is refused."""
    return pb.CircuitBreakers(
        thresholds=[
            pb.CircuitBreakers.Thresholds(
                max_connections=UInt32Value(value=100_000),
                max_requests=UInt32Value(value=100_000),
                max_pending_requests=UInt32Value(value=100_000),
                retry_budget=pb.CircuitBreakers.Thresholds.RetryBudget(
                    budget_percent=pb.Percent(value=50), min_retry_concurrency=UInt32Value(value=100)
                ),
            )
        ]
    )


@cache
def _ejection() -> pb.OutlierDetection:
    """A replica whose host or port does not answer leaves within a second of traffic and comes back by itself.

    A model that answers 500 is not ejected: that is its answer. Gateway errors (502 to 504) are. Envoy counts an
    expired time limit like a failed connection, so a few in a row are needed, and never more than half are ejected:
    slow models must not turn into absent ones. (Retries find the living among the dead without it.)
    """
    return pb.OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=_EJECTED_AFTER),
        enforcing_consecutive_local_origin_failure=UInt32Value(value=100),
        enforcing_local_origin_success_rate=UInt32Value(value=0),
        consecutive_gateway_failure=UInt32Value(value=5),
        enforcing_consecutive_gateway_failure=UInt32Value(value=100),
        enforcing_consecutive_5xx=UInt32Value(value=0),
        enforcing_success_rate=UInt32Value(value=0),
        interval=seconds(1),
        base_ejection_time=seconds(2),
        max_ejection_percent=UInt32Value(value=50),
    )


def _endpoints(plan: ServicePlan, name: str) -> pb.ClusterLoadAssignment:
    endpoints = [
        pb.LbEndpoint(
            endpoint=pb.Endpoint(address=pb.Address(socket_address=pb.SocketAddress(address=u.ip, port_value=u.port))),
            health_status=pb.DRAINING if u.draining else pb.HEALTHY,
            load_balancing_weight=UInt32Value(value=1),
        )
        for u in plan.upstreams
    ]
    return pb.ClusterLoadAssignment(
        cluster_name=name, endpoints=[pb.LocalityLbEndpoints(locality=pb.Locality(), lb_endpoints=endpoints)]
    )


_PREFIX = "type.googleapis.com/envoy."
_LUA_PER_ROUTE = _PREFIX + "extensions.filters.http.lua.v3.LuaPerRoute"
_PREVIOUS_HOSTS = _PREFIX + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_LEAST_REQUEST = _PREFIX + "extensions.load_balancing_policies.least_request.v3.LeastRequest"
_HTTP_OPTIONS = _PREFIX + "extensions.upstreams.http.v3.HttpProtocolOptions"
_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
