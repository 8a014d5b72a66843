"""Errors cross gRPC whole; keys and tokens are told apart; foreign errors do not leak."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from easel_contracts import errors
from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.facts import KeyState
from easel_kit.grpc import Server, caller, channel, source_of
from easel_kit.grpc_errors import from_rpc, from_status, to_status
from easel_kit.keyring import Keyring, sha256_hex
from easel_proto.internal.v1 import control_pb2, control_pb2_grpc
from easel_proto.v1 import services_pb2, services_pb2_grpc

KEY = "ek_k1_" + "s" * 43
TOKEN = "t" * 64


def test_field_errors_survive_the_way() -> None:
    """Path, code, message, hint, line and column arrive as they were sent."""
    field = FieldError(path="containers[0].port", code="WRONG_TYPE", message="m", hint="h", line=3, column=7)

    back = from_status(to_status(InvalidInput("2 errors", (field,), hint="see docs")))

    assert isinstance(back, InvalidInput)
    assert (back.fields, back.message, back.hint) == ((field,), "2 errors", "see docs")


@pytest.mark.parametrize("kind", [errors.NotFound, errors.AlreadyExists, errors.Conflict, errors.Refused])
def test_every_kind_survives_the_way(kind: type[errors.EaselError]) -> None:
    """Class, code, hint and metadata arrive as they were sent."""
    back = from_status(to_status(kind("SOME_CODE", "what happened", "what to do", name="ocr")))

    assert (type(back), back.code, back.message, back.hint) == (kind, "SOME_CODE", "what happened", "what to do")
    assert back.metadata == {"name": "ocr"}


class Services(services_pb2_grpc.ServicesServicer):
    async def Get(self, request: services_pb2.GetServiceRequest, context: Any) -> services_pb2.Service:
        if request.name == "boom":
            raise RuntimeError("secret detail")
        if request.name == "none":
            raise errors.NotFound("SERVICE_NOT_FOUND", "no service 'none'", "easel ls")
        return services_pb2.Service(service_name=request.name, message=caller().actor)


class Secrets(control_pb2_grpc.SecretsServicer):
    async def GetTokens(self, request: control_pb2.GetTokensRequest, context: Any) -> control_pb2.GetTokensResponse:
        return control_pb2.GetTokensResponse(tokens=[control_pb2.TokenOf(service=caller().actor)])


@pytest.fixture
async def address(short_path: Path) -> AsyncIterator[str]:
    peers = short_path / "peers.json"
    peers.write_text(json.dumps({"router": sha256_hex(TOKEN)}))
    keyring = Keyring(peers)
    keyring.learn(KeyState(id="k1", sha256=sha256_hex(KEY)))
    services, internal = Services(), Secrets()  # type: ignore[abstract]
    server = Server(f"unix:{short_path}/s.sock", keyring)
    server.add(services_pb2_grpc.add_ServicesServicer_to_server, services, "easel.v1.Services")
    server.add(control_pb2_grpc.add_SecretsServicer_to_server, internal, "easel.internal.v1.Secrets")
    await server.start()
    yield server.address
    await server.stop(0)


async def get(address: str, name: str, key: str | None = KEY) -> services_pb2.Service:
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    async with channel(address) as opened:
        stub: Any = services_pb2_grpc.ServicesStub(opened)
        return await stub.Get(services_pb2.GetServiceRequest(name=name), metadata=metadata)  # type: ignore[no-any-return]


async def test_the_caller_is_known_to_the_handler(address: str) -> None:
    """The handler sees the id of the access key."""
    assert (await get(address, "ocr")).message == "k1"


@pytest.mark.parametrize("key", [None, "", "ek_k1_wrong", "ek_k2_" + "s" * 43, "nonsense"])
async def test_without_a_right_key_nothing_is_answered(address: str, key: str | None) -> None:
    """No key, a wrong one, one of another id: unauthenticated, with a hint."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(address, "ocr", key)

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert from_rpc(raised.value).hint


async def test_errors_of_handlers_arrive_with_code_and_hint(address: str) -> None:
    """An EaselError in a handler is the same EaselError at the caller."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(address, "none")

    found = from_rpc(raised.value)
    assert isinstance(found, errors.NotFound)
    assert (found.code, found.hint) == ("SERVICE_NOT_FOUND", "easel ls")


async def test_faults_are_internal(address: str) -> None:
    """An exception without a meaning for users is INTERNAL, not a hang or UNKNOWN."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await get(address, "boom")

    assert raised.value.code() is grpc.StatusCode.INTERNAL


async def test_internal_apis_want_a_process_token(address: str) -> None:
    """A user's key does not open an internal API; a process's token does, and says whose it is."""
    async with channel(address, TOKEN) as opened:
        stub: Any = control_pb2_grpc.SecretsStub(opened)
        answer = await stub.GetTokens(control_pb2.GetTokensRequest())
        assert answer.tokens[0].service == "router"
    async with channel(address) as opened:
        stub = control_pb2_grpc.SecretsStub(opened)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetTokens(control_pb2.GetTokensRequest(), metadata=(("authorization", f"Bearer {KEY}"),))
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("metadata", "source"),
    [
        ({}, "unix:"),
        ({"x-forwarded-for": "6.6.6.6, 10.0.0.7"}, "10.0.0.7"),
        ({"x-forwarded-for": "6.6.6.6, 10.0.0.1", "x-envoy-external-address": "10.0.0.7"}, "10.0.0.7"),
    ],
)
def test_a_caller_cannot_forge_where_it_calls_from(metadata: dict[str, str], source: str) -> None:
    """The audit's source is what Envoy saw, not what the caller wrote before it."""
    assert source_of(metadata, "unix:") == source
