"""control's APIs of tokens and mirrors, for tests of clients."""

from __future__ import annotations

from typing import Any

from easel_contracts.errors import InvalidInput, NotFound
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from tests.flow.sdk.state import Platform, abort


class Tokens(tokens_pb2_grpc.TokensServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Tokens.List", request, context)
        return tokens_pb2.ListTokensResponse(tokens=self._p.tokens.get(request.service or request.group, []))

    def Create(self, request: Any, context: Any) -> Any:
        self._p.enter("Tokens.Create", request, context)
        made = tokens_pb2.AccessToken(
            name=request.name, value=request.value or "a-made-value", rate_limit=request.rate_limit
        )
        if request.expires_in_s:
            made.expire_time.FromSeconds(1_900_000_000 + request.expires_in_s)
        self._p.tokens.setdefault(request.service or request.group, []).append(made)
        return made

    def Rotate(self, request: Any, context: Any) -> Any:
        self._p.enter("Tokens.Rotate", request, context)
        return tokens_pb2.AccessToken(name=request.name, value=request.value or "a-newer-value")

    def Delete(self, request: Any, context: Any) -> Any:
        self._p.enter("Tokens.Delete", request, context)
        return tokens_pb2.AccessToken(name=request.name, value="its-last-value")


class Mirrors(mirrors_pb2_grpc.MirrorsServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Mirrors.Get", request, context)
        return self._mirror(request, context)

    def Set(self, request: Any, context: Any) -> Any:
        self._p.enter("Mirrors.Set", request, context)
        if request.HasField("compare") and not request.compare.no_side_effects:
            abort(context, InvalidInput("confirm that this has no side effects"))
        made = mirrors_pb2.Mirror(name=request.name, targets=request.targets, percent=request.percent)
        if request.HasField("compare"):
            made.compare.CopyFrom(request.compare)
        made.warnings.append(f"{request.percent:g} % of the requests are executed elsewhere, too")
        self._p.mirrors[request.name] = made
        return made

    def Delete(self, request: Any, context: Any) -> Any:
        self._p.enter("Mirrors.Delete", request, context)
        found = self._mirror(request, context)
        del self._p.mirrors[request.name]
        return found

    def _mirror(self, request: Any, context: Any) -> Any:
        if request.name not in self._p.mirrors:
            abort(context, NotFound("NO_MIRROR", f"requests of {request.name} are not mirrored"))
        return self._p.mirrors[request.name]
