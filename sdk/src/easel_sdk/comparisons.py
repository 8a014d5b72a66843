"""Comparisons: what the answers to mirrored requests were, beside the service's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easel_proto.v1 import mirrors_pb2
from easel_proto.v1.mirrors_pb2_grpc import ComparisonsStub
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.mirrors_pb2_grpc import ComparisonsAsyncStub


class ComparisonsApi:
    """Calls to `easel.v1.Comparisons`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def report(self, name: str) -> mirrors_pb2.ComparisonReport:
        """Where a service's answers and those of its mirror's target differ, by field, with `verdict` (`same`,
        `differs`, `not_enough_data`) and the sentence for it. It begins anew with another target, another revision of
        either side or other options. Raises NotFound."""
        request = mirrors_pb2.ReportRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Report(request, timeout=t, metadata=m))

    async def reset(self, name: str) -> mirrors_pb2.ComparisonReport:
        """Forgets what was compared; returns the report that begins. Raises NotFound."""
        request = mirrors_pb2.ReportRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Reset(request, timeout=t, metadata=m))

    def _stub(self) -> ComparisonsAsyncStub:
        return ComparisonsStub(self._transport.channel())
