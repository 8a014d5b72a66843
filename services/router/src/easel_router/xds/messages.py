"""Envoy's names for what we send it, and the small messages every other one is made of. Decides nothing."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from easel_router.xds import envoy_pb2 as pb

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTE = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"

EXTENSIONS = "type.googleapis.com/envoy.extensions."

AUTH_FILTER = "easel.auth"
PICK_FILTER = "easel.pick"
HOLD_FILTER = "easel.hold"
HOLD_LISTENER = "hold"
"""Envoy's own listener to which a request goes that found no living replica: it waits there, then is tried again."""
CHECK_CLUSTER = "easel-check"
"""By way of Envoy's own listener to the router: asks whether a held request may go on, whatever happens meanwhile."""
GO_HEADER = "x-easel-go"
"""The hold listener's answer: a replica is there, try again."""

METADATA = "easel"
"""Namespace of our metadata: of requests, virtual hosts, clusters and endpoints."""
ARM = "arm"
"""Key in the metadata of clusters and, in a split, of endpoints: `stable` or `candidate`. Of a request, where one was
chosen in front of its service."""
SUBJECT = "subject"
"""Key in a request's metadata: the canary whose evidence it is. Only such requests are told to the monitor."""
COUNTS_CLUSTER = "easel-counts"
"""By way of Envoy's own listener to the monitor: every request of a subject."""

SHADOW_CLUSTER = "easel-shadow"
"""Who compares the answers to copies of requests."""
MIRROR_HEADER = "x-easel-mirror"
"""Of a copy that goes to be compared: whose request it is."""
MIRRORED_HEADER = "x-easel-mirrored"
"""Tells a replica that nobody waits for its answer: whose request it is a copy of."""
ARM_HEADER = "x-easel-arm"
"""By which a comparison says which side it wants: `stable` or `candidate`."""

OWN_ROUTE = "easel-"
"""What names of the router's own routes begin with: refusals are counted by the route's name, and no service's name has
a dash."""

PROBE_PATH = "/.easel/probe/"
PROBE_HEADER = "x-easel-probe"
HASH_HEADER = "x-easel-route"


def any_of(type_url: str, message: Message) -> Any:
    """`message` under Envoy's own name for it."""
    return Any(type_url=type_url, value=serialised(message))


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


def serialised(message: Message) -> bytes:
    """The same bytes for the same content."""
    return message.SerializeToString(deterministic=True)


def check_service(timeout_s: float) -> pb.GrpcService:
    """Where a held request asks, and how long at most."""
    return pb.GrpcService(envoy_grpc=pb.GrpcService.EnvoyGrpc(cluster_name=CHECK_CLUSTER), timeout=seconds(timeout_s))
