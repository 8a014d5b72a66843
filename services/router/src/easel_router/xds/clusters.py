"""A service's clusters and endpoints: how Envoy balances over its replicas, and when it leaves one out.

Two clusters per service, for HTTP/1.1 and for gRPC (HTTP/2), with the same endpoints; twice as many while requests are
split between two revisions. Below the replicas lies a further priority with one endpoint, Envoy's own hold listener: a
request that is being retried while the last replica is gone ends up there and waits, instead of failing. In a split the
replicas of the other side lie in between.
"""

from __future__ import annotations

from functools import cache

from google.protobuf.wrappers_pb2 import UInt32Value

from easel_router.decide.arms import Arm
from easel_router.decide.limits import Limits
from easel_router.decide.mirrors import SHADOWS, Shadow
from easel_router.decide.snapshot import ServicePlan, Upstream
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import ARM, EXTENSIONS, HOLD_LISTENER, METADATA, ads, any_of, seconds

UPSTREAM_IDLE_S = 4.0
"""Below the keep-alive of common model servers (uvicorn: 5 s), so that Envoy is the one who closes."""

_ANY = 100_000

EJECTED_AFTER = 5
"""Failures in a row after which a replica is ejected for a while."""

_LEAST_REQUEST = EXTENSIONS + "load_balancing_policies.least_request.v3.LeastRequest"
_HTTP_OPTIONS = EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions"
_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


_CANDIDATE = "|candidate"
_SHADOW = "|shadow"


def arm_cluster(service: str, arm: Arm) -> str:
    """The cluster of one side of a split; without a split there is only that of stable, with all replicas."""
    return service if arm == "stable" else service + _CANDIDATE


def grpc_cluster(cluster: str) -> str:
    """The cluster that speaks HTTP/2 to the same replicas; gRPC needs it, plain model servers do not know it."""
    return f"{cluster}|grpc"


def shadow_cluster(service: str, shadow: Shadow) -> str:
    """The cluster for copies of requests."""
    return f"{service}{_SHADOW}" if shadow == "all" else f"{service}|{shadow}{_SHADOW}"


def is_shadow(name: str) -> Shadow | None:
    """Which replicas get copies over this cluster; None: it is none of those."""
    if not name.endswith(_SHADOW):
        return None
    arm = name.removesuffix(_SHADOW).partition("|")[2]
    return "stable" if arm == "stable" else "candidate" if arm == "candidate" else "all"


def cluster_arm(name: str) -> Arm:
    """The side whose cluster it is."""
    return "candidate" if _CANDIDATE in name else "stable"


def every_cluster(service: str) -> tuple[str, ...]:
    """All clusters in which the service's replicas may be, whatever its plan: who counts its requests needs them all,
    also those that no route leads to any more. What follows the first `|` is ours alone; metrics count all as one."""
    plain = [arm_cluster(service, arm) for arm in ("stable", "candidate")]
    return (*plain, *map(grpc_cluster, plain), *(shadow_cluster(service, shadow) for shadow in SHADOWS))


def upstream_idle_s(keep_alive_s: float | None) -> float:
    """How long Envoy keeps an idle connection to a replica: well below what the server does."""
    return UPSTREAM_IDLE_S if keep_alive_s is None else min(UPSTREAM_IDLE_S, keep_alive_s / 2)


def cluster(plan: ServicePlan, name: str, *, grpc: bool) -> pb.Cluster:
    """One of a service's clusters."""
    made = plain_cluster(plan, name, grpc=grpc)
    made.circuit_breakers.CopyFrom(_breakers(plan.limits, grpc=grpc))
    made.outlier_detection.CopyFrom(_ejection())
    return made


def plain_cluster(plan: ServicePlan, name: str, *, grpc: bool, longest_s: float | None = None) -> pb.Cluster:
    """Without limits and without ejection. `longest_s`: longest time for a request and its answer."""
    made = pb.Cluster(
        name=name,
        alt_stat_name=plan.service,  # all clusters of a service count as one
        type=pb.Cluster.EDS,
        eds_cluster_config=pb.Cluster.EdsClusterConfig(eds_config=ads()),
        connect_timeout=seconds(1),
        per_connection_buffer_limit_bytes=UInt32Value(value=1 << 20),
        ignore_health_on_host_removal=True,
        common_lb_config=pb.Cluster.CommonLbConfig(
            healthy_panic_threshold=pb.Percent(value=0), update_merge_window=seconds(0)
        ),
        load_balancing_policy=_least_request(),
        metadata=_says_arm(cluster_arm(name)),  # always, so that no cluster changes when a split begins or ends
    )
    protocol = pb.UpstreamHttpProtocolOptions.ExplicitHttpConfig()
    if grpc:
        protocol.http2_protocol_options.SetInParent()
        if plan.limits.workers:
            protocol.http2_protocol_options.max_concurrent_streams.value = plan.limits.workers
    else:
        protocol.http_protocol_options.SetInParent()
    idle_s = upstream_idle_s(plan.keep_alive_s)
    options = pb.UpstreamHttpProtocolOptions(
        common_http_protocol_options=pb.HttpProtocolOptions(
            idle_timeout=seconds(idle_s), max_stream_duration=None if longest_s is None else seconds(longest_s)
        ),
        explicit_http_config=protocol,
    )
    made.typed_extension_protocol_options[_OPTIONS_KEY].CopyFrom(any_of(_HTTP_OPTIONS, options))
    return made


def endpoints(plan: ServicePlan, name: str) -> pb.ClusterLoadAssignment:
    """The replicas, in a split those of the other side after them, and where a request waits when none lives."""
    ranks = _ranks(plan, cluster_arm(name))
    found = [
        pb.LocalityLbEndpoints(
            locality=pb.Locality(), lb_endpoints=[replica_endpoint(plan, u) for u in rank], priority=priority
        )
        for priority, rank in enumerate(ranks)
        if rank
    ]
    return pb.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[*found, _fallback(plan.service, len(ranks))],
        # a single living replica takes everything: the share of the dead is not the hold listener's
        policy=pb.ClusterLoadAssignment.Policy(overprovisioning_factor=UInt32Value(value=100_000)),
    )


def _ranks(plan: ServicePlan, arm: Arm) -> list[list[Upstream]]:
    """The replicas by priority."""
    if plan.split is None:
        return [list(plan.upstreams)]
    return [[u for u in plan.upstreams if u.arm == arm], [u for u in plan.upstreams if u.arm != arm]]


def replica_endpoint(plan: ServicePlan, upstream: Upstream) -> pb.LbEndpoint:
    """A replica as Envoy reaches it."""
    address = pb.SocketAddress(address=upstream.ip, port_value=upstream.port)
    return pb.LbEndpoint(
        endpoint=pb.Endpoint(address=pb.Address(socket_address=address)),
        health_status=pb.DRAINING if upstream.draining else pb.HEALTHY,
        load_balancing_weight=UInt32Value(value=1),
        metadata=_says_arm(upstream.arm) if plan.split is not None else None,
    )


@cache
def _says_arm(arm: Arm) -> pb.Metadata:
    made = pb.Metadata()
    made.filter_metadata[METADATA].update({ARM: arm})
    return made


def _fallback(service: str, priority: int) -> pb.LocalityLbEndpoints:
    """Degraded, so that it counts as no healthy member and is chosen only where nothing healthy is left.

    The listener learns from the address whose request it is: a header would go with every request to every replica."""
    internal = pb.EnvoyInternalAddress(server_listener_name=HOLD_LISTENER, endpoint_id=service)
    endpoint = pb.LbEndpoint(
        endpoint=pb.Endpoint(address=pb.Address(envoy_internal_address=internal)),
        health_status=pb.DEGRADED,
        load_balancing_weight=UInt32Value(value=1),
    )
    return pb.LocalityLbEndpoints(locality=pb.Locality(), lb_endpoints=[endpoint], priority=priority)


@cache
def _least_request() -> pb.LoadBalancingPolicy:
    """The least loaded of all: two random choices out of few replicas are often the same one."""
    policy = pb.TypedExtensionConfig(
        name="envoy.load_balancing_policies.least_request",
        typed_config=any_of(_LEAST_REQUEST, pb.LeastRequest(selection_method=pb.LeastRequest.FULL_SCAN)),
    )
    return pb.LoadBalancingPolicy(policies=[pb.LoadBalancingPolicy.Policy(typed_extension_config=policy)])


def _breakers(limits: Limits, *, grpc: bool) -> pb.CircuitBreakers:
    """The limits that Envoy keeps while the service's route changes; what they do not say is off but for sanity.

    At most so many connections to each replica: further requests wait, in the order they came. (gRPC has one, as wide
    as the limit.) Requests in flight are counted by a filter; this is for the moment in which that one starts anew.
    """
    requests = limits.concurrency.requests if limits.concurrency else _ANY
    made = pb.CircuitBreakers(thresholds=[_thresholds(requests)])
    if limits.workers:
        connections = UInt32Value(value=1 if grpc else limits.workers)
        made.per_host_thresholds.append(pb.CircuitBreakers.Thresholds(max_connections=connections))
    return made


@cache
def _thresholds(requests: int) -> pb.CircuitBreakers.Thresholds:
    """A retry counts against its budget until the request is over, so that with one of two replicas dead, or all of
    them, a third to a half would be refused. A request's own number of tries is the bound."""
    return pb.CircuitBreakers.Thresholds(
        max_connections=UInt32Value(value=_ANY),
        max_requests=UInt32Value(value=requests),
        max_pending_requests=UInt32Value(value=_ANY),
        retry_budget=pb.CircuitBreakers.Thresholds.RetryBudget(
            budget_percent=pb.Percent(value=100), min_retry_concurrency=UInt32Value(value=_ANY)
        ),
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
        consecutive_local_origin_failure=UInt32Value(value=EJECTED_AFTER),
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
