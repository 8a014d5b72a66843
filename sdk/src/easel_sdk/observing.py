"""Nodes, scaling, routes, metrics and audit: what can only be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from easel_proto.v1 import audit_pb2, metrics_pb2, nodes_pb2, routes_pb2, scaling_pb2
from easel_proto.v1.audit_pb2_grpc import AuditStub
from easel_proto.v1.common_pb2 import ExplainRequest, Explanation
from easel_proto.v1.metrics_pb2_grpc import MetricsStub
from easel_proto.v1.nodes_pb2_grpc import NodesStub
from easel_proto.v1.routes_pb2_grpc import RoutesStub
from easel_proto.v1.scaling_pb2_grpc import ScalingStub
from easel_sdk.errors import Unavailable
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.audit_pb2_grpc import AuditAsyncStub
    from easel_proto.v1.metrics_pb2_grpc import MetricsAsyncStub
    from easel_proto.v1.nodes_pb2_grpc import NodesAsyncStub
    from easel_proto.v1.routes_pb2_grpc import RoutesAsyncStub
    from easel_proto.v1.scaling_pb2_grpc import ScalingAsyncStub

_LONGEST_PAUSE_S = 5.0


class _Api:
    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace


class NodesApi(_Api):
    """Calls to `easel.v1.Nodes`."""

    async def list(self) -> list[nodes_pb2.Node]:
        """Where replicas can run."""
        request = nodes_pb2.ListNodesRequest(workspace=self._workspace)
        answer = await self._transport.call(lambda t, m: self._stub().List(request, timeout=t, metadata=m))
        return [*answer.nodes]

    async def get(self, node: str) -> nodes_pb2.Node:
        """One node. Raises NotFound."""
        request = nodes_pb2.GetNodeRequest(workspace=self._workspace, node=node)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def images(self, *, node: str = "", all: bool = False) -> nodes_pb2.ListImagesResponse:
        """Images that the nodes' engines have; nothing is pulled. `all`: also those without a tag. `silent` names the
        nodes whose images are not known, and why. Raises NotFound for a `node` that is not there."""
        request = nodes_pb2.ListImagesRequest(workspace=self._workspace, node=node, all=all)
        return await self._transport.call(lambda t, m: self._stub().ListImages(request, timeout=t, metadata=m))

    async def explain(self, node: str) -> Explanation:
        """Why a node has its state, and who holds what of it. Raises NotFound."""
        request = ExplainRequest(workspace=self._workspace, name=node)
        return await self._transport.call(lambda t, m: self._stub().Explain(request, timeout=t, metadata=m))

    def _stub(self) -> NodesAsyncStub:
        return NodesStub(self._transport.channel())


class ScalingApi(_Api):
    """Calls to `easel.v1.Scaling`."""

    async def get(self, name: str) -> scaling_pb2.ScalingStatus:
        """How many replicas the service should have, and what that was decided from."""
        request = scaling_pb2.GetScalingRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def history(self, name: str, *, limit: int = 50) -> list[scaling_pb2.Decision]:
        """The journal of decisions, newest first."""
        request = scaling_pb2.ScalingHistoryRequest(workspace=self._workspace, name=name, page_size=limit)
        answer = await self._transport.call(lambda t, m: self._stub().History(request, timeout=t, metadata=m))
        return [*answer.decisions]

    def _stub(self) -> ScalingAsyncStub:
        return ScalingStub(self._transport.channel())


class RoutesApi(_Api):
    """Calls to `easel.v1.Routes`."""

    async def get(self, name: str) -> routes_pb2.Route:
        """What every live Envoy does with the service's path."""
        request = routes_pb2.GetRouteRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    def _stub(self) -> RoutesAsyncStub:
        return RoutesStub(self._transport.channel())


class MetricsApi(_Api):
    """Calls to `easel.v1.Metrics`."""

    async def get(self, name: str, *, window_s: int = 60) -> metrics_pb2.MetricsWindow:
        """A summary of the last `window_s` seconds (at most 3600) and each of those seconds."""
        request = metrics_pb2.GetMetricsRequest(workspace=self._workspace, name=name, window_s=window_s)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def watch(self, name: str) -> AsyncIterator[metrics_pb2.MetricsPoint]:
        """Each second as it ends, without end; a broken stream is taken up again."""
        request = metrics_pb2.WatchMetricsRequest(workspace=self._workspace, name=name)
        pause_s = 0.1
        while True:
            try:
                async for point in self._transport.stream(lambda m: aiter(self._stub().Watch(request, metadata=m))):
                    pause_s = 0.1
                    yield point
            except Unavailable:
                if pause_s >= _LONGEST_PAUSE_S:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _stub(self) -> MetricsAsyncStub:
        return MetricsStub(self._transport.channel())


class AuditRecords(list[audit_pb2.AuditRecord]):
    """Records of mutations, newest first."""

    incomplete = ""
    """Whose records are missing, and why; empty: none are."""


class AuditApi(_Api):
    """Calls to `easel.v1.Audit`."""

    async def list(self, *, target: str = "", limit: int = 100) -> AuditRecords:
        """The newest `limit` records of mutations, of one target (`service/ocr`) or all; `incomplete` says what is
        missing in them."""
        found = AuditRecords()
        token = ""
        while len(found) < limit:
            request = audit_pb2.ListAuditRequest(
                workspace=self._workspace, target=target, page_size=min(limit - len(found), 1000), page_token=token
            )
            answer: Any = await self._transport.call(
                lambda t, m, request=request: self._stub().List(request, timeout=t, metadata=m)  # type: ignore[misc]
            )
            found.extend(answer.records)
            found.incomplete = found.incomplete or answer.incomplete
            token = answer.next_page_token
            if not token:
                break
        return found

    async def explain(self) -> Explanation:
        """How much is recorded, and since when."""
        request = ExplainRequest(workspace=self._workspace)
        return await self._transport.call(lambda t, m: self._stub().Explain(request, timeout=t, metadata=m))

    def _stub(self) -> AuditAsyncStub:
        return AuditStub(self._transport.channel())
