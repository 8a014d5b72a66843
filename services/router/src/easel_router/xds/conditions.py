"""Which answers a reply's body or a log is for. Pure."""

from __future__ import annotations

from easel_router.xds import envoy_pb2 as pb


def both(one: pb.AccessLogFilter, other: pb.AccessLogFilter) -> pb.AccessLogFilter:
    """Where one and the other hold."""
    return pb.AccessLogFilter(and_filter=pb.AndFilter(filters=[one, other]))


def either(one: pb.AccessLogFilter, other: pb.AccessLogFilter) -> pb.AccessLogFilter:
    """Where one or the other holds."""
    return pb.AccessLogFilter(or_filter=pb.OrFilter(filters=[one, other]))


def flags(*flags: str) -> pb.AccessLogFilter:
    """Answers with one of Envoy's response flags."""
    return pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=flags))


def status(code: int) -> pb.AccessLogFilter:
    """Answers with this status."""
    return _compare(pb.ComparisonFilter.EQ, code)


def at_least(code: int) -> pb.AccessLogFilter:
    """Answers with this status or a higher one."""
    return _compare(pb.ComparisonFilter.GE, code)


def _compare(op: pb.ComparisonFilter.Op.ValueType, code: int) -> pb.AccessLogFilter:
    value = pb.RuntimeUInt32(default_value=code, runtime_key=f"easel.reply.{code}")
    return pb.AccessLogFilter(
        status_code_filter=pb.StatusCodeFilter(comparison=pb.ComparisonFilter(op=op, value=value))
    )


def grpc_status(*codes: pb.GrpcStatusFilter.Status.ValueType) -> pb.AccessLogFilter:
    """It ended with one of these. (Plain answers have a status too, made of their code; of 200 it is UNKNOWN.)"""
    return pb.AccessLogFilter(grpc_status_filter=pb.GrpcStatusFilter(statuses=codes))


def is_grpc() -> pb.AccessLogFilter:
    """The request is a gRPC call."""
    grpc = pb.HeaderMatcher(name="content-type", string_match=pb.StringMatcher(prefix="application/grpc"))
    return pb.AccessLogFilter(header_filter=pb.HeaderFilter(header=grpc))
