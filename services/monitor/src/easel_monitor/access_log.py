"""The gRPC service that Envoys stream the access log to, of requests of canaries only.

Which canary a request belongs to is in its dynamic metadata (`easel.subject`), its arm likewise (`easel.arm`, where a
group's pick chose it) or in the custom tag `arm` (the side whose replica had it last). Where that is not the side it
was meant for (the tag `meant`), that side failed, and the other one answered in its place: an error of the one, and no
request of the other. Authenticated and parsed as the statistics are (sink.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from easel_kit.grpc import TOKEN_HEADER
from easel_kit.telemetry import get_logger
from easel_monitor.decide.outcomes import FAILED, GRPC_UNKNOWN, Outcome, Seen, outcome_of
from easel_monitor.envoy_metrics_pb2 import (
    Duration,
    HTTPAccessLogEntry,
    HTTPResponseProperties,
    ResponseFlags,
    StreamAccessLogsMessage,
)

SERVICE = "envoy.service.accesslog.v3.AccessLogService"
METHOD = "StreamAccessLogs"
NAMESPACE, SUBJECT, ARM, MEANT = "easel", "subject", "arm", "meant"
GRPC_STATUS = "grpc-status"
ARMS = frozenset({"stable", "candidate"})

Take = Callable[[Iterator[tuple[str, str, Outcome]]], None]
"""Gets (subject, arm, outcome) of each request of a message."""

log = get_logger("access-log")


class AccessLog:
    """envoy.service.accesslog.v3.AccessLogService."""

    def __init__(self, take: Take, allowed: Callable[[str], bool]) -> None:
        self._take, self._allowed = take, allowed
        self._numbers = count(1)

    async def stream(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """One Envoy's stream, for as long as it lives."""
        metadata = dict(context.invocation_metadata() or ())
        if not self._allowed(str(metadata.get(TOKEN_HEADER, ""))):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"metadata {TOKEN_HEADER} is missing or not known")
        number = next(self._numbers)
        log.info("envoy logs requests", stream=number)
        try:
            async for raw in messages:
                self._take(read(raw))
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a StreamAccessLogsMessage: {error}")
        finally:
            log.info("envoy logs no more", stream=number)
        return b""


def read(raw: bytes) -> Iterator[tuple[str, str, Outcome]]:
    """Subject, arm and outcome of each request of a message that belongs to a canary and counts; raises
    google.protobuf.message.DecodeError, before the first, where it is no message."""
    return _read(StreamAccessLogsMessage.FromString(raw))


def _read(message: StreamAccessLogsMessage) -> Iterator[tuple[str, str, Outcome]]:
    for entry in message.http_logs.log_entry:
        common = entry.common_properties
        if common.intermediate_log_entry:
            continue
        fields = common.metadata.filter_metadata[NAMESPACE].fields
        subject = fields[SUBJECT].string_value
        arm = fields[ARM].string_value
        if not arm:
            arm, meant = common.custom_tags.get(ARM, ""), common.custom_tags.get(MEANT, "")
            if subject and meant in ARMS and arm in ARMS and arm != meant:
                yield subject, meant, FAILED
                continue
        if subject and arm in ARMS and (outcome := outcome_of(_seen(entry))) is not None:
            yield subject, arm, outcome


def _seen(entry: HTTPAccessLogEntry) -> Seen:
    common, response = entry.common_properties, entry.response
    left = broken = False
    if common.HasField("response_flags"):
        left, broken = _left(common.response_flags), _broken(common.response_flags)
    first, last = common.HasField("time_to_first_upstream_tx_byte"), common.HasField("time_to_last_upstream_tx_byte")
    return Seen(
        response.response_code.value, response.response_code_details, left, broken,
        _seconds(common.time_to_first_upstream_tx_byte) if first else None,
        _seconds(common.time_to_last_upstream_tx_byte) if last else None,
        _seconds(common.time_to_first_upstream_rx_byte) if common.HasField("time_to_first_upstream_rx_byte") else None,
        _seconds(common.duration), _grpc_status(response),
    )  # fmt: skip


def _grpc_status(response: HTTPResponseProperties) -> int | None:
    """How a gRPC call ended; None: it was none, or was broken off."""
    told = response.response_trailers.get(GRPC_STATUS) or response.response_headers.get(GRPC_STATUS)
    if told is None:
        return None
    return int(told) if told.isascii() and told.isdigit() else GRPC_UNKNOWN


def _left(flags: ResponseFlags) -> bool:
    return flags.downstream_connection_termination or flags.downstream_remote_reset or flags.downstream_protocol_error


def _broken(flags: ResponseFlags) -> bool:
    return (
        flags.no_healthy_upstream or flags.upstream_connection_failure
        or flags.upstream_remote_reset or flags.upstream_connection_termination or flags.upstream_request_timeout
        or flags.local_reset or flags.stream_idle_timeout or flags.upstream_max_stream_duration_reached
        or flags.duration_timeout or flags.upstream_protocol_error
    )  # fmt: skip


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
