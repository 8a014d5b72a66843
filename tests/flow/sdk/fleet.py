"""The APIs of the scheduler, the autoscaler and the router, for tests of clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from easel_contracts.errors import NotFound
from easel_proto.v1 import (
    nodes_pb2,
    nodes_pb2_grpc,
    replicas_pb2,
    replicas_pb2_grpc,
    routes_pb2_grpc,
    scaling_pb2,
    scaling_pb2_grpc,
)
from tests.flow.sdk.state import Platform, abort


class Replicas(replicas_pb2_grpc.ReplicasServicer):
    """The scheduler's API for replicas."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.List", request, context)
        if self._p.replicas_path:
            self._p.replicas = self._p.replicas_path.pop(0)
        return replicas_pb2.ListReplicasResponse(replicas=self._p.replicas)

    def Restart(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.Restart", request, context)
        named = [replica for replica in self._p.replicas if replica.name in request.replicas]
        return replicas_pb2.RestartReplicasResponse(replicas=named)

    def Isolate(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.Isolate", request, context)
        found = next((replica for replica in self._p.replicas if replica.name == request.replica), None)
        if found is None:
            abort(context, NotFound("NO_SUCH_REPLICA", f"{request.service} has no replica {request.replica}"))
        found.isolated = request.isolated
        return found

    def Logs(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Replicas.Logs", request, context)
        for replica, data in (("ocr-1-aaaaa", b"one\ntw"), ("ocr-1-bbbbb", b"other\n"), ("ocr-1-aaaaa", b"o\nlast")):
            yield replicas_pb2.LogChunk(replica=replica, stream="stdout", data=data)

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.Explain", request, context)
        return self._p.explanation("scheduler")


class Nodes(nodes_pb2_grpc.NodesServicer):
    """The scheduler's API for nodes."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.List", request, context)
        node = nodes_pb2.Node(node="local", state="ready", cpu=2, memory_mib=4096, runtimes=self._p.runtimes)
        return nodes_pb2.ListNodesResponse(nodes=[node])

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.Get", request, context)
        return nodes_pb2.Node(node=request.node, state="ready", runtimes=self._p.runtimes)

    def ListImages(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.ListImages", request, context)
        return self._p.images

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.Explain", request, context)
        return self._p.explanation("scheduler")


class Scaling(scaling_pb2_grpc.ScalingServicer):
    """The autoscaler's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.Get", request, context)
        self._p.scaling.name = request.name
        return self._p.scaling

    def History(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.History", request, context)
        return scaling_pb2.ScalingHistoryResponse(decisions=self._p.decisions)

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.Explain", request, context)
        return self._p.explanation("autoscaler")


class Routes(routes_pb2_grpc.RoutesServicer):
    """The router's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Routes.Get", request, context)
        self._p.route.name = request.name
        return self._p.route

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Routes.Explain", request, context)
        return self._p.explanation("router")
