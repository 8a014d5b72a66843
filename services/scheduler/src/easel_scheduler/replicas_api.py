"""easel.v1.Replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_kit.grpc import caller
from easel_proto.v1 import common_pb2, replicas_pb2, replicas_pb2_grpc
from easel_scheduler.answers import ticket
from easel_scheduler.commands import Call, Commands
from easel_scheduler.decide.explain import explain
from easel_scheduler.decide.shown import shown
from easel_scheduler.decide.world import Reason
from easel_scheduler.logs import Logs
from easel_scheduler.model import replica_message, timestamp
from easel_scheduler.planner import Planner
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store


class ReplicasApi(replicas_pb2_grpc.ReplicasServicer):
    """What runs, what it wrote, and why it is so."""

    def __init__(
        self, store: Store, planner: Planner, commands: Commands, logs: Logs, settings: SchedulerSettings
    ) -> None:  # fmt: skip
        self._store, self._planner, self._commands = store, planner, commands
        self._logs, self._settings = logs, settings

    async def List(
        self, request: replicas_pb2.ListReplicasRequest, context: object
    ) -> replicas_pb2.ListReplicasResponse:
        """Replicas of a service; none for a name that was never heard of."""
        self._check(request.workspace, request.service, "service")
        rows = await self._store.of_service(request.service, self._settings.keep_ended)
        found = shown(rows, everything=request.all)
        return replicas_pb2.ListReplicasResponse(replicas=[replica_message(r) for r in found])

    async def Restart(
        self, request: replicas_pb2.RestartReplicasRequest, context: object
    ) -> replicas_pb2.RestartReplicasResponse:
        """Replaces the named replicas, or (soft) starts their processes anew. Success means: it will happen."""
        if not request.replicas:
            raise InvalidInput("`replicas` is missing: the names of those to restart", code="MISSING",
                               hint="`easel w NAME` lists them")  # fmt: skip
        if request.soft and request.now:
            raise InvalidInput("`soft` and `now` exclude each other: a soft restart replaces nothing, and waits until "
                               "no request is left")  # fmt: skip
        what = "its process is started anew" if request.soft else "it is replaced"
        when = "at once" if request.now else "in turn" if request.soft else "once its successor serves"
        call = self._call(request, "Restart", Reason("RestartAsked", f"{what}, {when}, as {caller().actor} asked"))
        await self._refuse_locked(request.service)
        return await self._commands.restart(call, request.replicas, soft=request.soft, now=request.now)

    async def Isolate(
        self, request: replicas_pb2.IsolateReplicaRequest, context: object
    ) -> replicas_pb2.Replica:  # fmt: skip
        """Takes a replica out of traffic without ending it, or lets it back."""
        if not request.replica:
            raise InvalidInput("`replica` is missing: its name", code="MISSING", hint="`easel w NAME` lists them")
        code, what = ("Isolated", "taken out of traffic") if request.isolated else ("LetBack", "let back into traffic")
        call = self._call(request, "Isolate", Reason(code, f"{what} by {caller().actor}"))
        await self._refuse_locked(request.service)
        return await self._commands.isolate(call, request.replica, isolated=request.isolated)

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

    def _call(self, request: Any, method: str, why: Reason) -> Call:
        self._check(request.workspace, request.service, "service")
        who, action = caller(), f"Replicas.{method}"
        content = request.SerializeToString(deterministic=True)
        asked = ticket(self._settings.workspace, who.actor, request.idempotency_key, action, content)
        return Call(caller=who, action=action, ticket=asked, service=request.service, why=why)

    async def _refuse_locked(self, name: str) -> None:
        """As control does for its own mutations; the lock is as new as the newest fact about the service."""
        service = await self._planner.service(name)
        if service is not None and service.safety_lock == "all":
            raise Conflict(
                "LOCKED",
                f"{name} is locked (all): every change is refused",
                f"`easel lock {name} none` takes the lock off",
            )

    def _check(self, workspace: str, name: str, field: str) -> None:
        if not name:
            raise InvalidInput(f"`{field}` is missing: the service's name", code="MISSING")
        if workspace not in ("", self._settings.workspace):
            raise InvalidInput(f"there is no workspace {workspace!r} here, only {self._settings.workspace!r}",
                               code="UNKNOWN_WORKSPACE")  # fmt: skip
