"""easel.internal.v1.Traffic: requests in flight per replica, counted now by every live Envoy."""

from __future__ import annotations

import asyncio

from easel_contracts.errors import Unauthenticated, Unavailable
from easel_kit.grpc import caller
from easel_proto.internal.v1 import router_pb2, router_pb2_grpc
from easel_router.envoys import Envoys
from easel_router.model import Known
from easel_router.xds.clusters import every_cluster
from easel_router.xds.load import Loads

LONGEST_S = 2.0


class TrafficApi(router_pb2_grpc.TrafficServicer):
    """For the scheduler, which ends the replica with the fewest."""

    def __init__(self, known: Known, loads: Loads, envoys: Envoys) -> None:
        self._known, self._loads, self._envoys = known, loads, envoys

    async def InFlight(self, request: router_pb2.InFlightRequest, context: object) -> router_pb2.InFlightResponse:
        """Raises Unavailable where an Envoy does not say: unknown is not zero."""
        if caller().actor != "scheduler":
            raise Unauthenticated("NOT_FOR_YOU", f"only the scheduler may ask for this, not {caller().actor}")
        plan = self._known.plan(request.service)
        if plan is None or not plan.upstreams:
            return router_pb2.InFlightResponse()
        clusters = every_cluster(request.service)
        with self._loads.watching(clusters):
            asked = [self._loads.next_by_address(envoy, clusters) for envoy in self._envoys.live()]
            try:
                async with asyncio.timeout(LONGEST_S):
                    counts = await asyncio.gather(*asked)
            except TimeoutError as error:
                raise Unavailable("ENVOY_SILENT", f"an Envoy did not report its load within {LONGEST_S:g} s") from error
        if not counts:
            raise Unavailable("NO_ENVOY", "no Envoy is connected to the router")
        found = {u.replica: sum(count.get((u.ip, u.port), 0) for count in counts) for u in plan.upstreams}
        return router_pb2.InFlightResponse(in_flight=found)
