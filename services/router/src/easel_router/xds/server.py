"""The gRPC face towards Envoys: aggregated delta discovery and load reports, as raw bytes.

Decides only who may connect (a process token) and when (not before the state is loaded: an Envoy takes "nothing"
for the removal of everything).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import grpc

from easel_kit.telemetry import get_logger
from easel_router.xds import check
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.catalog import Catalog
from easel_router.xds.check import Ask
from easel_router.xds.load import Loads
from easel_router.xds.refusals import reason_of
from easel_router.xds.stream import Stream

log = get_logger("xds")

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class XdsServer:
    """Serves a catalog to every Envoy that connects."""

    def __init__(
        self,
        catalog: Catalog,
        loads: Loads,
        listeners: Callable[[dict[str, object]], dict[str, bytes]],
        allowed: Callable[[str], bool],
        ask: Ask,
    ) -> None:
        """`listeners` makes an Envoy's listeners from its node's metadata; `allowed` judges a process token; `ask`
        answers for requests that are held."""
        self.streams: dict[str, Stream] = {}
        self.loaded = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None
        """Called when an Envoy comes, becomes live or goes."""
        self._catalog, self._loads = catalog, loads
        self._listeners, self._allowed, self._ask_for_held = listeners, allowed, ask

    async def start(self, address: str) -> grpc.aio.Server:
        """Listens at `unix:/path` or `host:port`."""
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "envoy.service.discovery.v3.AggregatedDiscoveryService",
                    {"DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._discovery)},
                ),
                grpc.method_handlers_generic_handler(
                    "envoy.service.load_stats.v3.LoadReportingService",
                    {"StreamLoadStats": grpc.stream_stream_rpc_method_handler(self._load_stats)},
                ),
                check.handler(self._ask_for_held, self._admit),
            )
        )
        if not server.add_insecure_port(address):
            raise RuntimeError(f"cannot listen at {address}")
        await server.start()
        return server

    async def _admit(self, context: Context) -> None:
        metadata = dict(cast("list[tuple[str, str]]", context.invocation_metadata() or ()))
        if not self._allowed(metadata.get("easel-process-token", "")):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no or wrong process token")
        if not self.loaded.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the routes are not loaded yet")

    async def _discovery(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await self._admit(context)
        stream = Stream(self._catalog)
        writer = asyncio.create_task(self._write(stream, context))
        try:
            async for payload in requests:
                request = pb.DeltaDiscoveryRequest.FromString(payload)
                if not stream.envoy and request.node.id:
                    stream.introduce(request.node)
                    stream.listeners = self._listeners(stream.metadata)
                    self.streams[stream.envoy] = stream
                    self.on_change()
                was_live = stream.is_live()
                if request.HasField("error_detail"):
                    log.warning(
                        "refused",
                        envoy=stream.envoy,
                        kind=request.type_url,
                        reason=reason_of(request.error_detail.message),
                    )
                stream.receive(request)
                if stream.is_live() != was_live:
                    self.on_change()
        finally:
            writer.cancel()
            if self.streams.get(stream.envoy) is stream:
                del self.streams[stream.envoy]
            stream.close()
            self.on_change()

    async def _write(self, stream: Stream, context: Context) -> None:
        while True:
            await stream.something_due.wait()
            message = stream.due()
            if message is not None:
                await context.write(message)

    async def _load_stats(self, requests: AsyncIterator[bytes], context: Context) -> None:
        await self._admit(context)
        first = pb.LoadStatsRequest.FromString(await anext(requests))
        envoy = first.node.id
        with self._loads.reporter(envoy) as reporter:
            writer = asyncio.create_task(self._ask(reporter.questions, context))
            try:
                async for payload in requests:
                    reporter.report(pb.LoadStatsRequest.FromString(payload))
            finally:
                writer.cancel()

    async def _ask(self, questions: asyncio.Queue[bytes], context: Context) -> None:
        while True:
            await context.write(await questions.get())
