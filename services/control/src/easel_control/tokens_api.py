"""easel.v1.Tokens: requests to changes of tokens. Decides nothing."""

from __future__ import annotations

from easel_contracts.errors import FieldError, InvalidInput
from easel_control.admission import generated_token
from easel_control.decide import tokens as decide
from easel_control.mutating import Mutations
from easel_control.pages import workspace_of
from easel_control.token_store import Kind
from easel_control.tokens import TokenKeeper, token_view
from easel_kit.clock import Clock
from easel_proto.v1 import tokens_pb2, tokens_pb2_grpc


class TokensApi(tokens_pb2_grpc.TokensServicer):
    """The tokens of services and groups."""

    def __init__(self, workspace: str, keeper: TokenKeeper, mutations: Mutations, clock: Clock) -> None:
        self._workspace, self._keeper, self._mutations, self._clock = workspace, keeper, mutations, clock

    async def List(self, request: tokens_pb2.ListTokensRequest, context: object) -> tokens_pb2.ListTokensResponse:
        """With their values: who may call this may call the service."""
        kind, name = _owner(request.service, request.group)
        found = await self._keeper.listed(workspace_of(request.workspace, self._workspace), kind, name)
        return tokens_pb2.ListTokensResponse(tokens=[token_view(token) for token in found])

    async def Create(self, request: tokens_pb2.CreateTokenRequest, context: object) -> tokens_pb2.AccessToken:
        """One more."""
        kind, name = _owner(request.service, request.group)
        value = request.value or generated_token()
        return await self._keeper.change(
            self._mutations.call("Tokens.Create", request), kind, name,
            lambda before: decide.created(before, request.name, value, expires_in_s=request.expires_in_s,
                                          rate_limit_qps=request.rate_limit, now=self._clock.now()),
        )  # fmt: skip

    async def Rotate(self, request: tokens_pb2.RotateTokenRequest, context: object) -> tokens_pb2.AccessToken:
        """A new value; the one before stays good for a while."""
        kind, name = _owner(request.service, request.group)
        value = request.value or generated_token()
        return await self._keeper.change(
            self._mutations.call("Tokens.Rotate", request), kind, name,
            lambda before: decide.rotated(before, request.name, value, overlap_s=request.overlap_s,
                                          now=self._clock.now()),
        )  # fmt: skip

    async def Delete(self, request: tokens_pb2.DeleteTokenRequest, context: object) -> tokens_pb2.AccessToken:
        """Ends one; callers with it are refused from then on."""
        kind, name = _owner(request.service, request.group)
        return await self._keeper.change(
            self._mutations.call("Tokens.Delete", request), kind, name,
            lambda before: decide.deleted(before, request.name, self._clock.now()),
        )  # fmt: skip


def _owner(service: str, group: str) -> tuple[Kind, str]:
    """Whose tokens a request means; raises InvalidInput."""
    if bool(service) == bool(group):
        code, message = ("CONFLICT", "both are given") if service else ("MISSING", "neither is given")
        field = FieldError(path="service", code=code, message=f"either service or group says whose: {message}")
        raise InvalidInput(field.message, (field,))
    return ("service", service) if service else ("group", group)
