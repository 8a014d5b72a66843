"""How many requests each replica is answering: the router knows, and is asked only where the answer decides."""

from __future__ import annotations

import grpc.aio

from easel_kit.telemetry import get_logger
from easel_proto.internal.v1 import router_pb2, router_pb2_grpc

ASK_S = 1.0
"""A victim is chosen without the answer rather than later."""

log = get_logger("in_flight")


class InFlight:
    """Asks the router."""

    def __init__(self, router: grpc.aio.Channel, workspace: str) -> None:
        self._stub: router_pb2_grpc.TrafficAsyncStub = router_pb2_grpc.TrafficStub(router)
        self._workspace = workspace

    async def of(self, service: str) -> dict[str, int]:
        """Replica → requests in flight; one that is missing is not known. Empty where the router does not answer."""
        request = router_pb2.InFlightRequest(workspace=self._workspace, service=service)
        try:
            # A router that was just started again is waited for, within the limit.
            answer = await self._stub.InFlight(request, timeout=ASK_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            log.warning("requests in flight not known", service=service, code=error.code().name, error=error.details())
            return {}
        return dict(answer.in_flight)
