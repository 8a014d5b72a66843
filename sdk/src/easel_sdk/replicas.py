"""Replicas: the running copies of a service, and what they print."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from easel_contracts.ids import uuid7
from easel_proto.v1 import replicas_pb2 as pb
from easel_proto.v1.replicas_pb2_grpc import ReplicasStub
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.replicas_pb2_grpc import ReplicasAsyncStub


class ReplicasApi:
    """Calls to `easel.v1.Replicas`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def list(self, service: str, *, all: bool = False) -> list[pb.Replica]:
        """The service's replicas; with `all` also those that have ended, newest first."""
        request = pb.ListReplicasRequest(workspace=self._workspace, service=service, all=all)
        answer = await self._transport.call(lambda t, m: self._stub().List(request, timeout=t, metadata=m))
        return [*answer.replicas]

    async def restart(
        self, service: str, replicas: Sequence[str], *, soft: bool = False, now: bool = False,
        idempotency_key: str | None = None,
    ) -> Sequence[pb.Replica]:  # fmt: skip
        """Replaces the named replicas: a successor first where there is room, then the old one drains.

        `now`: they drain at once, without waiting for successors. `soft`: the process of each is started anew in its
        place, one at a time, while no request reaches it. Returns them as they are; `Client.watch_replacement` says
        when it is done.
        """
        request = pb.RestartReplicasRequest(
            workspace=self._workspace, service=service, replicas=replicas, soft=soft, now=now,
            idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        answer = await self._transport.call(lambda t, m: self._stub().Restart(request, timeout=t, metadata=m))
        return [*answer.replicas]

    async def isolate(
        self, service: str, replica: str, *, isolated: bool = True, idempotency_key: str | None = None
    ) -> pb.Replica:
        """Takes a replica out of traffic without ending it, and another takes its place; or lets it back."""
        request = pb.IsolateReplicaRequest(
            workspace=self._workspace, service=service, replica=replica, isolated=isolated,
            idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Isolate(request, timeout=t, metadata=m))

    async def logs(
        self, service: str, *, replica: str = "", tail_lines: int = 0, follow: bool = False, previous: bool = False
    ) -> AsyncIterator[pb.LogChunk]:
        """What replicas printed, and with `follow` what they print.

        `tail_lines`: 0 is 200 lines, -1 all that is kept. `previous`: the run before the last restart. The stream
        is not taken up again when it breaks: a log has no position to go on from.
        """
        request = pb.ReplicaLogsRequest(
            workspace=self._workspace, service=service, replica=replica, tail_lines=tail_lines, follow=follow,
            previous=previous,
        )  # fmt: skip
        async for chunk in self._transport.stream(lambda m: aiter(self._stub().Logs(request, metadata=m))):
            yield chunk

    def _stub(self) -> ReplicasAsyncStub:
        return ReplicasStub(self._transport.channel())
