"""gRPC's own health and reflection services, also for APIs that other processes serve at the same outside address.

Health of another's API is what that process answers now: one that does not answer within ASK_S is NOT_SERVING.
Never answers from memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection_aio
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

REFLECTION = "grpc.reflection.v1.ServerReflection"
REFLECTION_ALPHA = "grpc.reflection.v1alpha.ServerReflection"
ASK_S = 1.0
WATCH_EVERY_S = 1.0

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health_aio.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1.Health; the empty name is this process alone."""

    def __init__(self) -> None:
        super().__init__()
        self._others: dict[str, grpc.aio.Channel] = {}

    def relay(self, full_name: str, channel: grpc.aio.Channel) -> None:
        """Has the process behind `channel` asked about this API."""
        self._others[full_name] = channel

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Now."""
        if request.service in self._others:
            return health_pb2.HealthCheckResponse(status=await self._of_other(request.service))
        found: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return found

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Now and after each change; another process is asked once a second."""
        if request.service not in self._others:
            await super().Watch(request, context)
            return
        last: health_pb2.HealthCheckResponse.ServingStatus.ValueType | None = None
        while True:
            status = await self._of_other(request.service)
            if status != last:
                await context.write(health_pb2.HealthCheckResponse(status=status))
            last = status
            await asyncio.sleep(WATCH_EVERY_S)

    async def _of_other(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        stub: Any = health_pb2_grpc.HealthStub(self._others[name])
        try:
            answer: health_pb2.HealthCheckResponse = await stub.Check(
                health_pb2.HealthCheckRequest(service=name), timeout=ASK_S
            )
        except grpc.aio.AioRpcError:
            return NOT_SERVING
        return answer.status


def add_reflection(server: Any, full_names: Iterable[str]) -> None:
    """Serves reflection as v1 and as v1alpha: both have the same messages, by other names."""
    names = [*full_names, health.SERVICE_NAME, REFLECTION_ALPHA]
    servicer = reflection_aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": handler}),)
    )
