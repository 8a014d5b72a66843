"""Requests under analysis, each told to the monitor: Envoy's access log over gRPC. Pure.

The listener comes by discovery and must not hold a process token, so the log goes by way of Envoy's own listener that
adds it (`holding_listeners`).
"""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BoolValue

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import ARM, COUNTS_CLUSTER, EXTENSIONS, METADATA, SUBJECT, any_of, seconds

LOG_NAME = "easel.counts"
FLUSH_S = 0.2
"""A second is final soon after its end."""

MEANT = "meant"
GRPC_STATUS = "grpc-status"
"""How a gRPC call ended, under HTTP 200: in the trailers, or in the headers where nothing else was answered."""

_GRPC_LOG = EXTENSIONS + "access_loggers.grpc.v3.HttpGrpcAccessLogConfig"


def counts() -> pb.AccessLog:
    """Tells of requests whose metadata has a subject; others cost one look.

    The tag `arm` is the side whose replica had the request last; where none had it, that of the cluster it was meant
    for. A choice made in front of the service (`easel.arm` of the request) counts before both. The tag `meant` is the
    cluster's side alone: where it differs, that side failed and the other one had to answer.
    """
    meant = pb.MetadataKind(cluster=pb.MetadataKind.Cluster())
    kinds = (
        meant,
        pb.MetadataKind(host=pb.MetadataKind.Host()),
        pb.MetadataKind(request=pb.MetadataKind.Request()),
    )
    common = pb.GrpcLogCommon(
        log_name=LOG_NAME,
        grpc_service=pb.GrpcService(envoy_grpc=pb.GrpcService.EnvoyGrpc(cluster_name=COUNTS_CLUSTER)),
        buffer_flush_interval=seconds(FLUSH_S),
        transport_api_version=pb.V3,
        custom_tags=[*(_arm(kind) for kind in kinds), _arm(meant, MEANT)],  # of one name, the last known one stays
    )
    log = pb.GrpcLog(
        common_config=common,
        additional_response_headers_to_log=[GRPC_STATUS],
        additional_response_trailers_to_log=[GRPC_STATUS],
    )
    return pb.AccessLog(
        name=LOG_NAME,
        filter=_has_subject(),
        typed_config=any_of(_GRPC_LOG, log),
    )


def _arm(kind: pb.MetadataKind, tag: str = ARM) -> pb.CustomTag:
    key = pb.MetadataKey(key=METADATA, path=[pb.MetadataKey.PathSegment(key=ARM)])
    return pb.CustomTag(tag=tag, metadata=pb.CustomTag.Metadata(kind=kind, metadata_key=key))


def _has_subject() -> pb.AccessLogFilter:
    matcher = pb.MetadataMatcher(
        filter=METADATA,
        path=[pb.MetadataMatcher.PathSegment(key=SUBJECT)],
        value=pb.ValueMatcher(present_match=True),
    )
    found = pb.MetadataFilter(matcher=matcher, match_if_key_not_found=BoolValue(value=False))
    return pb.AccessLogFilter(metadata_filter=found)
