"""Environment values and code from control, over the internal API. Nothing fetched here is ever logged."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc

from easel_agent.runtime import Login, RevisionSecrets
from easel_kit.grpc_errors import from_rpc
from easel_proto.internal.v1 import control_pb2, control_pb2_grpc

ANSWER_S = 20.0
"""Longest wait for control: it may be restarting."""


class ControlSecrets:
    """See runtime.Secrets and archives.FetchCode."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = control_pb2_grpc.SecretsStub(channel)

    async def of_revision(self, workspace: str, service: str, revision: int) -> RevisionSecrets:
        """See runtime.Secrets."""
        request = control_pb2.GetEnvironmentRequest(workspace=workspace, service=service, revision=revision)
        try:
            answer = await self._stub.GetEnvironment(request, timeout=ANSWER_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        return RevisionSecrets(
            env=dict(answer.env), sidecars=tuple(dict(sidecar.env) for sidecar in answer.sidecars),
            registry_login=answer.registry_login,
            logins={number: Login(username=login.username, password=login.password)
                    for number, login in answer.logins.items()},
        )  # fmt: skip

    async def code(self, digest: str) -> AsyncIterator[bytes]:
        """Pieces of an archive. Raises EaselError."""
        request = control_pb2.GetCodeRequest(digest=digest)
        try:
            async for chunk in self._stub.GetCode(request, wait_for_ready=True, timeout=600):
                yield chunk.data
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
