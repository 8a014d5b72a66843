"""Mirrors: copies of a service's requests that others get, and how their answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from easel_contracts.ids import uuid7
from easel_proto.v1 import mirrors_pb2 as pb
from easel_proto.v1.mirrors_pb2_grpc import MirrorsStub
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.mirrors_pb2_grpc import MirrorsAsyncStub


class MirrorsApi:
    """Calls to `easel.v1.Mirrors`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def get(self, name: str) -> pb.Mirror:
        """Who gets copies of a service's requests; `warnings` says what that costs. Raises NotFound where nobody
        does."""
        request = pb.GetMirrorRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def set(
        self, name: str, targets: Sequence[str], percent: float, *, compare: pb.CompareOptions | None = None,
        idempotency_key: str | None = None,
    ) -> pb.Mirror:  # fmt: skip
        """Has a share of a service's requests copied to other services, or to `@candidate`, its own new revision.

        Callers never wait for the copies. `percent` 0 keeps the settings, but off. `compare`: answers are compared
        with those of the one target, for which requests are executed again: its `no_side_effects` must be true. Takes
        the place of what was set before. Raises InvalidInput with everything wrong, NotFound, Conflict.
        """
        request = pb.SetMirrorRequest(
            workspace=self._workspace, name=name, targets=targets, percent=percent, compare=compare,
            idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Set(request, timeout=t, metadata=m))

    async def delete(self, name: str, *, idempotency_key: str | None = None) -> pb.Mirror:
        """Ends copying; returns the settings as they were. Raises NotFound where nothing is copied."""
        request = pb.DeleteMirrorRequest(
            workspace=self._workspace, name=name, idempotency_key=idempotency_key or uuid7()
        )
        return await self._transport.call(lambda t, m: self._stub().Delete(request, timeout=t, metadata=m))

    def _stub(self) -> MirrorsAsyncStub:
        return MirrorsStub(self._transport.channel())
