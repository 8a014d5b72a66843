"""The router's API of compared answers, for tests of clients."""

from __future__ import annotations

from typing import Any

from easel_contracts.errors import NotFound
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc
from tests.flow.sdk.state import Platform, abort


class Comparisons(mirrors_pb2_grpc.ComparisonsServicer):
    """The router's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Report(self, request: Any, context: Any) -> Any:
        self._p.enter("Comparisons.Report", request, context)
        return self._report(request, context)

    def Reset(self, request: Any, context: Any) -> Any:
        self._p.enter("Comparisons.Reset", request, context)
        self._report(request, context)
        self._p.reports[request.name] = mirrors_pb2.ComparisonReport(name=request.name, verdict="not_enough_data")
        return self._p.reports[request.name]

    def _report(self, request: Any, context: Any) -> Any:
        if request.name not in self._p.reports:
            abort(context, NotFound("NO_SUCH_SERVICE", f"there is no service {request.name}"))
        return self._p.reports[request.name]
