"""Where a service's requests go: to its one cluster, or to two of them while they are split. Pure."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value
from msgspec import Struct

from easel_contracts.spec import Match, Split, Sticky
from easel_router.decide.arms import WHOLE, Arm
from easel_router.decide.snapshot import ServicePlan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.clusters import arm_cluster, grpc_cluster


class Way(Struct, frozen=True):
    """Which requests, and to which cluster or clusters; the rest of the action is the route's."""

    match: pb.RouteMatch
    to: pb.RouteAction


def ways(plan: ServicePlan, match: pb.RouteMatch, *, grpc: bool) -> list[Way]:
    """One way, or two where some requests go to the candidate whatever the weight; first match wins."""
    split = plan.split
    if split is None or plan.hold is not None:  # while requests are held it is not known who will answer first
        return [Way(match, _all_to(plan.service, "stable", grpc))]
    share = Way(match, _shared(plan.service, split, grpc))
    if split.match is None:
        return [share]
    return [Way(_also(match, split.match), _all_to(plan.service, "candidate", grpc)), share]


def _shared(service: str, split: Split, grpc: bool) -> pb.RouteAction:
    """The candidate stands first: Envoy puts the hash of what is sticky (or chance) into the interval of one of the
    weights, so that with a growing weight who is at the candidate already stays there."""
    weights: dict[Arm, int] = {"candidate": split.weight_permille, "stable": WHOLE - split.weight_permille}
    given = {arm: weight for arm, weight in weights.items() if weight}
    if len(given) == 1:
        return _all_to(service, next(iter(given)), grpc)
    clusters = [
        pb.WeightedCluster.ClusterWeight(name=_name(service, arm, grpc), weight=UInt32Value(value=weight))
        for arm, weight in given.items()
    ]
    if split.sticky is None:
        return pb.RouteAction(weighted_clusters=pb.WeightedCluster(clusters=clusters))
    return pb.RouteAction(
        weighted_clusters=pb.WeightedCluster(clusters=clusters, use_hash_policy=BoolValue(value=True)),
        hash_policy=[_hashed(split.sticky)],
    )


def _all_to(service: str, arm: Arm, grpc: bool) -> pb.RouteAction:
    return pb.RouteAction(cluster=_name(service, arm, grpc))


def _name(service: str, arm: Arm, grpc: bool) -> str:
    cluster = arm_cluster(service, arm)
    return grpc_cluster(cluster) if grpc else cluster


def _also(match: pb.RouteMatch, told: Match) -> pb.RouteMatch:
    made = pb.RouteMatch()
    made.CopyFrom(match)
    value = pb.StringMatcher(exact=told.value)
    if told.kind == "header":
        made.headers.append(pb.HeaderMatcher(name=told.name, string_match=value))
    elif told.kind == "cookie":
        made.cookies.append(pb.CookieMatcher(name=told.name, string_match=value))
    else:
        made.query_parameters.append(pb.QueryParameterMatcher(name=told.name, string_match=value))
    return made


def _hashed(sticky: Sticky) -> pb.RouteAction.HashPolicy:
    """Requests without it are decided by chance."""
    policy = pb.RouteAction.HashPolicy
    if sticky.kind == "header":
        return policy(header=policy.Header(header_name=sticky.name))
    if sticky.kind == "cookie":
        return policy(cookie=policy.Cookie(name=sticky.name))
    return policy(query_parameter=policy.QueryParameter(name=sticky.name))
