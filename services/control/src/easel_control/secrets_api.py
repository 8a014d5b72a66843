"""easel.internal.v1.Secrets: the only way by which secrets leave control, each to the one process that needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from easel_contracts.errors import NotFound, Unauthenticated
from easel_control.decide.tokens import Token, Tokens, good
from easel_control.environment import Environments
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.model import ServiceRow
from easel_control.pages import workspace_of
from easel_control.store import Store
from easel_control.token_store import TokenStore
from easel_control.uploads import CodeStore
from easel_kit.clock import Clock
from easel_kit.grpc import caller
from easel_proto.internal.v1 import control_pb2, control_pb2_grpc


class SecretsApi(control_pb2_grpc.SecretsServicer):
    """Tokens for the router; environments and code for the agent."""

    def __init__(
        self, workspace: str, store: Store, groups: GroupStore, tokens: TokenStore, group_tokens: GroupTokens,
        environments: Environments, code: CodeStore, token_of: Callable[[ServiceRow], str],
        registry_login_of: Callable[[ServiceRow], str], clock: Clock,
    ) -> None:  # fmt: skip
        self._workspace, self._store, self._groups, self._environments = workspace, store, groups, environments
        self._tokens, self._group_tokens, self._clock = tokens, group_tokens, clock
        self._code, self._token_of, self._registry_login_of = code, token_of, registry_login_of

    async def GetTokens(self, request: control_pb2.GetTokensRequest, context: object) -> control_pb2.GetTokensResponse:
        """Tokens that are good now of the services and groups named, or of all when none is; unknown names are left
        out."""
        _only("router")
        workspace = workspace_of(request.workspace, self._workspace)
        names, group_names = list(request.services), list(request.groups)
        answer = control_pb2.GetTokensResponse()
        async with self._store.database.snapshot() as connection:  # a version and the tokens of that version
            if names or not group_names:
                more = await self._tokens.of_some(connection, "service", workspace, names)
                for row in await self._store.some(workspace, names, connection):
                    answer.tokens.append(self._of(row.name, self._token_of(row), row.token_version, more))
            if group_names or not names:
                more = await self._tokens.of_some(connection, "group", workspace, group_names)
                for group in await self._groups.some(workspace, group_names, connection):
                    token = self._group_tokens.of(group)
                    answer.groups.append(self._of(group.name, token, group.token_version, more))
        return answer

    def _of(self, name: str, token: str, version: int, more: Mapping[str, Tokens]) -> control_pb2.TokenOf:
        named = _named(good(more.get(name, ()), self._clock.now()))
        return control_pb2.TokenOf(service=name, token=token, version=version, more=named)

    async def GetEnvironment(
        self, request: control_pb2.GetEnvironmentRequest, context: object
    ) -> control_pb2.GetEnvironmentResponse:
        """A revision's environments and logins, with the service's login for registries as it is now."""
        _only("agent")
        workspace = workspace_of(request.workspace, self._workspace)
        row = await self._store.revision(workspace, request.service, request.revision)
        if row is None:
            raise NotFound("NO_SUCH_REVISION", f"{request.service} has no revision {request.revision}")
        service = await self._store.get(workspace, request.service)
        found = self._environments.resolve(workspace, row.name, row.number, row.env_sealed)
        answer = control_pb2.GetEnvironmentResponse(
            env=found.env, registry_login="" if service is None else self._registry_login_of(service)
        )
        for env in found.sidecars:
            answer.sidecars.add(env=env)
        for place, login in found.logins.items():
            answer.logins[place].CopyFrom(control_pb2.Login(username=login.username, password=login.password))
        return answer

    async def GetCode(
        self, request: control_pb2.GetCodeRequest, context: object
    ) -> AsyncIterator[control_pb2.CodeChunk]:
        """An uploaded archive."""
        _only("agent")
        async for chunk in self._code.read(request.digest):
            yield control_pb2.CodeChunk(data=chunk)


def _named(tokens: Iterable[Token]) -> list[control_pb2.NamedToken]:
    return [
        control_pb2.NamedToken(
            name=t.name, value=t.value, rate_limit_qps=t.rate_limit_qps,
            expires_unix_s=0 if t.expires_at is None else int(t.expires_at.timestamp()),
        )
        for t in tokens
    ]  # fmt: skip


def _only(process: str) -> None:
    """Raises Unauthenticated unless the caller is `process`."""
    if caller().actor != process:
        raise Unauthenticated("NOT_FOR_YOU", f"only {process} may ask for this, not {caller().actor}")
