"""Copies of requests: who gets them, over which cluster, and the routes by which a comparison reaches its two sides.

Envoy sends a copy beside the request, as it comes, and throws its answer away. Small circuit breakers bound what a
target that is slow or away can cost; what is above them is dropped. There is no retry, no hold listener, no ejection.
WebSockets and gRPC calls are not copied: a conversation with two sides has no copy. Nor are large bodies, and those of
which it is not known how large they get: a target that does not read would hold up the caller once Envoy's buffer for
the copy is full (it slows a request down to the slowest of who gets it). Below that limit the buffer has room for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from google.protobuf.wrappers_pb2 import UInt32Value

from easel_contracts.spec import CANDIDATE, Mirroring
from easel_router.decide.mirrors import Shadow, base_of
from easel_router.decide.snapshot import ServicePlan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.clusters import plain_cluster, replica_endpoint, shadow_cluster
from easel_router.xds.limiting import GROUP_LIMITS_FILTER, LIMITS_FILTER
from easel_router.xds.messages import (
    ARM_HEADER,
    AUTH_FILTER,
    MIRROR_HEADER,
    MIRRORED_HEADER,
    OWN_ROUTE,
    PROBE_HEADER,
    SHADOW_CLUSTER,
    seconds,
)
from easel_router.xds.scopes import left_out, lua_off

MAX_CONNECTIONS = 32
MAX_PENDING = 32
MAX_REQUESTS = 128
LONGEST_S = 60.0
"""A copy that takes longer is given up."""
LARGEST_BODY = 4 << 20
"""Requests with longer bodies are not copied, in bytes."""
BUFFER = LARGEST_BODY + (1 << 20)
"""Of a connection for copies, in bytes: a whole request has room."""
_MILLION = 1_000_000

Policies = Sequence[pb.RouteAction.RequestMirrorPolicy]


def cluster(plan: ServicePlan, shadow: Shadow) -> pb.Cluster:
    """Where copies go: they count as the target's requests."""
    limit_s = min(plan.traffic.keepalive_ms / 1000, LONGEST_S)
    made = plain_cluster(plan, shadow_cluster(plan.service, shadow), grpc=False, longest_s=limit_s)
    made.circuit_breakers.CopyFrom(_breakers())
    if plan.limits.workers:  # of copies at a time, beside its callers' requests
        workers = UInt32Value(value=plan.limits.workers)
        made.circuit_breakers.per_host_thresholds.append(pb.CircuitBreakers.Thresholds(max_connections=workers))
    made.per_connection_buffer_limit_bytes.value = BUFFER
    return made


def endpoints(plan: ServicePlan, shadow: Shadow) -> pb.ClusterLoadAssignment:
    """The replicas, and nobody else: a copy that finds none is dropped."""
    chosen = [u for u in plan.upstreams if shadow == "all" or u.arm == shadow]
    found = [pb.LocalityLbEndpoints(locality=pb.Locality(), lb_endpoints=[replica_endpoint(plan, u) for u in chosen])]
    return pb.ClusterLoadAssignment(
        cluster_name=shadow_cluster(plan.service, shadow), endpoints=found if chosen else []
    )


def policies(plan: ServicePlan, probe_secret: str) -> list[pb.RouteAction.RequestMirrorPolicy]:
    """One for each target; for a comparison one, to the collector."""
    mirroring = plan.mirroring
    if mirroring is None:
        return []
    if mirroring.compare is not None:
        told = {MIRROR_HEADER: plan.service, PROBE_HEADER: probe_secret}
        return [_policy(SHADOW_CLUSTER, mirroring, told)]
    return [_policy(_target(plan, name), mirroring, {MIRRORED_HEADER: plan.service}) for name in mirroring.targets]


def kinds(copies: Policies) -> list[tuple[list[pb.HeaderMatcher], Policies]]:
    """What a request must be like, beside what its route asks for, and its copies; the last is for all others."""
    return [*((headers, copies) for headers in (_copyable() if copies else [])), ([], ())]


@cache
def _copyable() -> list[list[pb.HeaderMatcher]]:
    """A body of a known, small length; or a method that has none."""
    no_upgrade = pb.HeaderMatcher(name="upgrade", present_match=True, invert_match=True)
    small = pb.HeaderMatcher(name="content-length", range_match=pb.Int64Range(start=0, end=LARGEST_BODY + 1))
    methods = pb.StringMatcher(safe_regex=pb.RegexMatcher(regex="GET|HEAD|OPTIONS|DELETE"))
    bodyless = [
        pb.HeaderMatcher(name=":method", string_match=methods),
        pb.HeaderMatcher(name="content-length", present_match=True, invert_match=True),
        pb.HeaderMatcher(name="transfer-encoding", present_match=True, invert_match=True),
    ]
    return [[small, no_upgrade], [*bodyless, no_upgrade]]


def replay_routes(plan: ServicePlan, probe_secret: str) -> list[pb.Route]:
    """For the collector alone, who knows the secret: each side by itself. A side without a replica answers 503, the
    other does not answer for it. The limits are for callers: how much is replayed is limited by the sampling."""
    mirroring = plan.mirroring
    if mirroring is None or mirroring.compare is None:
        return []
    sides = {
        "stable": shadow_cluster(plan.service, base_of(mirroring)),
        "candidate": _target(plan, mirroring.targets[0]),
    }
    base = f"/api/predict/{plan.service}"
    made = []
    for arm, name in sides.items():
        headers = [
            pb.HeaderMatcher(name=PROBE_HEADER, string_match=pb.StringMatcher(exact=probe_secret)),
            pb.HeaderMatcher(name=ARM_HEADER, string_match=pb.StringMatcher(exact=arm)),
        ]
        for match in (pb.RouteMatch(prefix=base + "/", headers=headers), pb.RouteMatch(path=base, headers=headers)):
            made.append(_replay_route(plan, match, name))
    return made


def _replay_route(plan: ServicePlan, match: pb.RouteMatch, cluster_name: str) -> pb.Route:
    limit_s = min(plan.traffic.keepalive_ms / 1000, LONGEST_S)
    once = pb.RetryPolicy(retry_on="connect-failure", num_retries=UInt32Value(value=1))
    mirrored = pb.HeaderValueOption(
        header=pb.HeaderValue(key=MIRRORED_HEADER, value=plan.service),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return pb.Route(
        name=OWN_ROUTE + "replay",
        match=match,
        route=pb.RouteAction(cluster=cluster_name, prefix_rewrite="/", timeout=seconds(limit_s), retry_policy=once),
        request_headers_to_add=[mirrored],
        request_headers_to_remove=[PROBE_HEADER, ARM_HEADER],
        typed_per_filter_config={AUTH_FILTER: lua_off(), LIMITS_FILTER: left_out(), GROUP_LIMITS_FILTER: left_out()},
    )


def _target(plan: ServicePlan, name: str) -> str:
    return shadow_cluster(plan.service, "candidate") if name == CANDIDATE else shadow_cluster(name, "all")


def _policy(cluster_name: str, mirroring: Mirroring, told: dict[str, str]) -> pb.RouteAction.RequestMirrorPolicy:
    """Whoever gets a copy must not get what opens the service that it was sent to."""
    share = pb.FractionalPercent(
        numerator=round(mirroring.percent * _MILLION / 100), denominator=pb.FractionalPercent.MILLION
    )
    added = [
        pb.HeaderMutation(
            append=pb.HeaderValueOption(
                header=pb.HeaderValue(key=key, value=value),
                append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
        )
        for key, value in told.items()
    ]
    return pb.RouteAction.RequestMirrorPolicy(
        cluster=cluster_name,
        runtime_fraction=pb.RuntimeFractionalPercent(default_value=share),
        disable_shadow_host_suffix_append=True,
        request_headers_mutations=[pb.HeaderMutation(remove="authorization"), *added],
    )


@cache
def _breakers() -> pb.CircuitBreakers:
    return pb.CircuitBreakers(
        thresholds=[
            pb.CircuitBreakers.Thresholds(
                max_connections=UInt32Value(value=MAX_CONNECTIONS),
                max_pending_requests=UInt32Value(value=MAX_PENDING),
                max_requests=UInt32Value(value=MAX_REQUESTS),
            )
        ]
    )
