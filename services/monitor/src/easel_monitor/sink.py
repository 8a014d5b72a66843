"""The gRPC server that Envoys stream their statistics and access logs to. Authenticated by the process token they send.

The method's messages are taken as bytes and parsed with our own small .proto (envoy_metrics.proto). A message that
cannot be parsed ends the stream (Envoy opens a new one): it must never be counted half.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from itertools import count

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_monitor import access_log as access_logs
from easel_monitor.access_log import AccessLog
from easel_monitor.frames import Collector
from easel_monitor.intake import Reader, ServiceOf

METHOD = "envoy.service.metrics.v3.MetricsService"
TOKEN = "easel-process-token"

log = get_logger("sink")


class Sink:
    """envoy.service.metrics.v3.MetricsService."""

    def __init__(
        self, collector: Collector, clock: Clock, service_of: ServiceOf, allowed: Callable[[str], bool]
    ) -> None:
        self._collector, self._clock = collector, clock
        self._service_of, self._allowed = service_of, allowed
        self._numbers = count(1)

    async def stream(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        """One Envoy's stream, for as long as it lives."""
        metadata = dict(context.invocation_metadata() or ())
        if not self._allowed(str(metadata.get(TOKEN, ""))):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, f"metadata {TOKEN} is missing or not known")
        envoy = f"stream-{next(self._numbers)}"
        reader = Reader(self._service_of)
        self._collector.opened(envoy)
        log.info("envoy reports", stream=envoy)
        try:
            async for raw in messages:
                await self._collector.take(reader.read(raw, self._clock.now().timestamp(), envoy))
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a StreamMetricsMessage: {error}")
        finally:
            self._collector.closed(envoy)
            log.info("envoy silent", stream=envoy, node=reader.node)
        return b""


async def serve(sink: Sink, access_log: AccessLog, addr: str) -> grpc.aio.Server:
    """Starts the server on unix:/path or host:port. The caller stops it."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    statistics = {"StreamMetrics": grpc.stream_unary_rpc_method_handler(sink.stream)}
    requests = {access_logs.METHOD: grpc.stream_unary_rpc_method_handler(access_log.stream)}
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(METHOD, statistics),
            grpc.method_handlers_generic_handler(access_logs.SERVICE, requests),
        ]
    )
    if not server.add_insecure_port(addr):
        raise OSError(f"EASEL_MONITOR_SINK_ADDR={addr} cannot be listened on")
    await server.start()
    if addr.startswith("unix:"):
        os.chmod(addr.removeprefix("unix:"), 0o600)
    return server
