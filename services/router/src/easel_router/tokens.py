"""Fetches tokens of services and groups from control, only when their version has changed. Never logs or stores one."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from easel_kit.telemetry import get_logger
from easel_proto.internal.v1 import control_pb2, control_pb2_grpc
from easel_router.decide.snapshot import Token, TokenSet
from easel_router.model import Known

log = get_logger("tokens")


class Tokens:
    """Keeps `known.tokens` and `known.group_tokens` as new as the services and groups are."""

    def __init__(self, channel: grpc.aio.Channel, known: Known, workspace: str) -> None:
        self._stub = control_pb2_grpc.SecretsStub(channel)
        self._known, self._workspace = known, workspace
        self.changed: Callable[[str], None] = lambda service: None
        """Called with a service whose tokens are others now: they open it in its groups too."""

    def outdated(self, service: str) -> bool:
        """Whether the token kept is older than the service says."""
        state, token = self._known.services.get(service), self._known.tokens.get(service)
        if state is None or state.wanted == "deleted":
            return False
        return token is None or token.version < state.token_version

    def group_outdated(self, group: str) -> bool:
        """The same of a group's."""
        state, tokens = self._known.groups.get(group), self._known.group_tokens.get(group)
        return state is not None and (tokens is None or tokens.version < state.token_version)

    async def refresh(self, services: list[str], groups: list[str] | None = None) -> None:
        """Fetches the tokens of these; raises grpc.aio.AioRpcError where control does not answer."""
        wanted = [name for name in services if self.outdated(name)]
        wanted_groups = [name for name in groups or [] if self.group_outdated(name)]
        if not wanted and not wanted_groups:
            return
        request = control_pb2.GetTokensRequest(workspace=self._workspace, services=wanted, groups=wanted_groups)
        answer = await self._stub.GetTokens(request, timeout=5)
        for kept, answered in ((self._known.tokens, answer.tokens), (self._known.group_tokens, answer.groups)):
            for found in answered:
                before, now = kept.get(found.service), token_set(found)
                if not found.token or now == before or (before is not None and before.version > now.version):
                    continue
                kept[found.service] = now
                if kept is self._known.tokens:
                    self.changed(found.service)

    async def ensure(self, service: str) -> bool:
        """Whether the token is as new as the service; if not, an older one is in use for now, or there is none."""
        if self.outdated(service):
            await self._try([service], [])
        return not self.outdated(service)

    async def ensure_group(self, group: str) -> bool:
        """The same of a group's."""
        if self.group_outdated(group):
            await self._try([], [group])
        return not self.group_outdated(group)

    async def _try(self, services: list[str], groups: list[str]) -> None:
        try:
            await self.refresh(services, groups)
        except grpc.aio.AioRpcError as error:
            log.warning("tokens not fetched", services=services, groups=groups, error=error.details())


def token_set(found: control_pb2.TokenOf) -> TokenSet:
    """Control's answer in our words."""
    more = (
        Token(name=t.name, value=t.value, expires_unix_s=t.expires_unix_s, rate_limit_qps=t.rate_limit_qps)
        for t in found.more
    )
    return TokenSet(tokens=(Token(value=found.token), *more), version=found.version)
