"""easel.v1.Replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec.structs import replace

from easel_contracts.errors import InvalidInput
from easel_proto.v1 import common_pb2, replicas_pb2, replicas_pb2_grpc
from easel_scheduler.decide.explain import explain
from easel_scheduler.decide.shown import shown
from easel_scheduler.logs import Logs
from easel_scheduler.model import replica_message, timestamp
from easel_scheduler.planner import Planner
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store


class ReplicasApi(replicas_pb2_grpc.ReplicasServicer):
    """What runs, what it wrote, and why it is so."""

    def __init__(self, store: Store, planner: Planner, logs: Logs, settings: SchedulerSettings) -> None:
        self._store, self._planner, self._logs, self._settings = store, planner, logs, settings

    async def List(
        self, request: replicas_pb2.ListReplicasRequest, context: object
    ) -> replicas_pb2.ListReplicasResponse:
        """Replicas of a service; none for a name that was never heard of."""
        self._check(request.workspace, request.service, "service")
        rows = await self._store.of_service(request.service, self._settings.keep_ended)
        found = shown(rows, everything=request.all)
        return replicas_pb2.ListReplicasResponse(replicas=[replica_message(r) for r in found])

    async def Logs(
        self, request: replicas_pb2.ReplicaLogsRequest, context: object
    ) -> AsyncIterator[replicas_pb2.LogChunk]:
        """Output of one or all replicas of a service, merged as it comes."""
        self._check(request.workspace, request.service, "service")
        async for chunk in self._logs.stream(request):
            yield chunk

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why as many, why there, why in this state."""
        self._check(request.workspace, request.name, "name")
        snapshot = await self._planner.load(request.name)
        snapshot = replace(snapshot, nodes=await self._planner.nodes_for(request.name))
        lines = [common_pb2.Why(code=x.code, message=x.message, hint=x.hint) for x in explain(snapshot)]
        return common_pb2.Explanation(part="scheduler", lines=lines, at=timestamp(snapshot.now))

    def _check(self, workspace: str, name: str, field: str) -> None:
        if not name:
            raise InvalidInput(f"`{field}` is missing: the service's name", code="MISSING")
        if workspace not in ("", self._settings.workspace):
            raise InvalidInput(f"there is no workspace {workspace!r} here, only {self._settings.workspace!r}",
                               code="UNKNOWN_WORKSPACE")  # fmt: skip
