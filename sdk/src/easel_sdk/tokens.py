"""Tokens: what opens a service or a group to its callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easel_contracts.ids import uuid7
from easel_proto.v1 import tokens_pb2 as pb
from easel_proto.v1.tokens_pb2_grpc import TokensStub
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.tokens_pb2_grpc import TokensAsyncStub


class TokensApi:
    """Calls to `easel.v1.Tokens`. `owner` is the name of a service or, with `group`, of a group."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def list(self, owner: str, *, group: bool = False) -> list[pb.AccessToken]:
        """Those that are good now with their values, `default` first. Raises NotFound."""
        request = pb.ListTokensRequest(workspace=self._workspace, **_owner(owner, group))
        answer = await self._transport.call(lambda t, m: self._stub().List(request, timeout=t, metadata=m))
        return [*answer.tokens]

    async def create(
        self, owner: str, name: str, *, value: str = "", expires_in_s: int = 0, rate_limit: int = 0,
        group: bool = False, idempotency_key: str | None = None,
    ) -> pb.AccessToken:  # fmt: skip
        """One more token. Without `value` (8 to 256 printable characters) one is made.

        `expires_in_s`: 0 is never. `rate_limit`: requests per second with this token, 0 is no limit. Raises
        InvalidInput, AlreadyExists, Conflict.
        """
        request = pb.CreateTokenRequest(
            workspace=self._workspace, name=name, value=value, expires_in_s=expires_in_s, rate_limit=rate_limit,
            idempotency_key=idempotency_key or uuid7(), **_owner(owner, group),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Create(request, timeout=t, metadata=m))

    async def rotate(
        self, owner: str, name: str = "default", *, value: str = "", overlap_s: int = 3600, group: bool = False,
        idempotency_key: str | None = None,
    ) -> pb.AccessToken:  # fmt: skip
        """A new value for a token; the one before stays good for `overlap_s`, so that callers can change over.

        0 ends the value before at once. Raises InvalidInput, NotFound, Conflict.
        """
        request = pb.RotateTokenRequest(
            workspace=self._workspace, name=name, value=value, overlap_s=overlap_s,
            idempotency_key=idempotency_key or uuid7(), **_owner(owner, group),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Rotate(request, timeout=t, metadata=m))

    async def delete(
        self, owner: str, name: str, *, group: bool = False, idempotency_key: str | None = None
    ) -> pb.AccessToken:
        """Ends a token and its older values. `default` cannot be deleted, only rotated. Raises NotFound, Conflict."""
        request = pb.DeleteTokenRequest(
            workspace=self._workspace, name=name, idempotency_key=idempotency_key or uuid7(), **_owner(owner, group)
        )
        return await self._transport.call(lambda t, m: self._stub().Delete(request, timeout=t, metadata=m))

    def _stub(self) -> TokensAsyncStub:
        return TokensStub(self._transport.channel())


def _owner(name: str, group: bool) -> dict[str, str]:
    return {"group" if group else "service": name}
