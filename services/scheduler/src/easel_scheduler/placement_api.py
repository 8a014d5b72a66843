"""easel.internal.v1.Placement: whether replicas would find room, for control, which asks before a rollout."""

from __future__ import annotations

import msgspec

from easel_contracts.errors import InvalidInput, Unauthenticated
from easel_contracts.spec import RevisionSpec
from easel_kit.grpc import caller
from easel_proto.internal.v1 import scheduler_pb2, scheduler_pb2_grpc
from easel_scheduler.decide.fits import fits
from easel_scheduler.planner import Planner

MOST = 10_000
"""Replicas in one question."""

_revision = msgspec.msgpack.Decoder(RevisionSpec)


class PlacementApi(scheduler_pb2_grpc.PlacementServicer):
    """Answers from what is reserved; reserves nothing."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    async def Fits(self, request: scheduler_pb2.FitsRequest, context: object) -> scheduler_pb2.FitsResponse:
        """By the filters that place replicas, beside all that lives and stays: what drains makes room by itself, and a
        new replica waits for that without anybody's being interrupted."""
        if caller().actor != "control":
            raise Unauthenticated("NOT_FOR_YOU", f"only control may ask for this, not {caller().actor}")
        if not 0 <= request.replicas <= MOST:
            raise InvalidInput(f"replicas is {request.replicas}; 0 to {MOST} are allowed")
        try:
            spec = _revision.decode(request.revision_msgpack)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"revision_msgpack is not a revision: {error}") from error
        nodes = await self._planner.nodes_for(request.service, leaving=False)
        found = fits(spec, request.replicas, nodes)
        if found is None:
            return scheduler_pb2.FitsResponse(fits=True)
        return scheduler_pb2.FitsResponse(fits=False, reason=found.code, message=found.message)
