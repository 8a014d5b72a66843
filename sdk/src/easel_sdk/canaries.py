"""Canaries: a new revision, or another member of a group, is brought in step by step and judged on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from easel_contracts.ids import uuid7
from easel_proto.v1 import canaries_pb2 as pb
from easel_proto.v1.canaries_pb2_grpc import CanariesStub
from easel_sdk.spec_file import SpecSource
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.canaries_pb2_grpc import CanariesAsyncStub

CanaryAction = Literal["promote", "pause", "resume", "abort", "step"]


class CanariesApi:
    """Calls to `easel.v1.Canaries`. `config` makes the text to send of a service.json, as for an update."""

    def __init__(self, transport: Transport, workspace: str, config: Callable[[SpecSource], Awaitable[str]]) -> None:
        self._transport = transport
        self._workspace = workspace
        self._config = config

    async def start(
        self, name: str, spec: SpecSource | None = None, *, plan: pb.CanaryPlan | None = None, revision: int = 0,
        candidate: str = "", replace: bool = False, allow_interruption: bool = False,
        idempotency_key: str | None = None,
    ) -> pb.Canary:  # fmt: skip
        """Begins a canary of a service or a group.

        Of a service, with one of: `spec`, the keys to change (with `replace` everything), which make the new revision;
        `revision`, one there has been; neither, for the rollout that is on. Of a group: `candidate`, the member that
        is to take over. `plan` says how; without it the defaults of the platform hold. Raises InvalidInput, NotFound,
        Conflict; Refused where a new replica finds no room.
        """
        request = pb.StartCanaryRequest(
            workspace=self._workspace, name=name, config="" if spec is None else await self._config(spec),
            update_type="replace" if replace else "merge", revision=revision, candidate=candidate, plan=plan,
            allow_interruption=allow_interruption, idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Start(request, timeout=t, metadata=m))

    async def get(self, name: str) -> pb.Canary:
        """The canary of a service or group that is on, else its last one; or the one with this id. Raises NotFound."""
        request = pb.GetCanaryRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def list(self, name: str = "") -> list[pb.Canary]:
        """Those that are on, then past ones, newest first."""
        request = pb.ListCanariesRequest(workspace=self._workspace, name=name)
        answer: Any = await self._transport.call(lambda t, m: self._stub().List(request, timeout=t, metadata=m))
        return [*answer.canaries]

    async def watch(self, name: str) -> AsyncIterator[pb.Canary]:
        """The canary now and whenever it changed, about once a second, until it has ended."""
        request = pb.GetCanaryRequest(workspace=self._workspace, name=name)
        async for canary in self._transport.stream(lambda m: aiter(self._stub().Watch(request, metadata=m))):
            yield canary

    async def change(self, name: str, action: CanaryAction, *, idempotency_key: str | None = None) -> pb.Canary:
        """promote: to the candidate at once · pause · resume · abort: back to what was stable · step: the next weight,
        by hand. Raises NotFound, Conflict."""
        request = pb.ChangeCanaryRequest(
            workspace=self._workspace, name=name, action=action, idempotency_key=idempotency_key or uuid7()
        )
        return await self._transport.call(lambda t, m: self._stub().Change(request, timeout=t, metadata=m))

    def _stub(self) -> CanariesAsyncStub:
        return CanariesStub(self._transport.channel())
