"""control's API of canaries, for tests of clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from easel_contracts.errors import NotFound
from easel_proto.v1 import canaries_pb2, canaries_pb2_grpc
from tests.flow.sdk.state import Platform, abort


class Canaries(canaries_pb2_grpc.CanariesServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Start(self, request: Any, context: Any) -> Any:
        self._p.enter("Canaries.Start", request, context)
        made = canaries_pb2.Canary(
            id="c1", name=request.name, kind="group" if request.candidate else "service", state="starting",
            stable_revision=1, candidate_revision=request.revision or 2, candidate=request.candidate,
            plan=request.plan, step=-1, waits_for="0 of 1 replicas of the candidate serve", warnings=["mind the cache"],
        )  # fmt: skip
        self._p.canaries.insert(0, made)
        return made

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Canaries.Get", request, context)
        return self._last(request, context)

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Canaries.List", request, context)
        return canaries_pb2.ListCanariesResponse(canaries=self._p.canaries)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Canaries.Watch", request, context)
        yield from self._p.canaries

    def Change(self, request: Any, context: Any) -> Any:
        self._p.enter("Canaries.Change", request, context)
        return self._last(request, context)

    def _last(self, request: Any, context: Any) -> Any:
        if not self._p.canaries:
            abort(context, NotFound("NO_CANARY", f"there has been no canary of {request.name}"))
        return self._p.canaries[-1]
