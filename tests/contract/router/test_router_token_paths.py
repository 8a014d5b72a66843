"""Tokens and mirrors over REST: each path of the protos, of services and of groups, becomes the call it stands for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf.json_format import MessageToDict

from easel_contracts.facts import KeyState
from easel_kit.grpc import Server
from easel_kit.keyring import Keyring, sha256_hex
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc, tokens_pb2, tokens_pb2_grpc
from easel_router.testing import Rig

KEY = "ek_test_" + "0" * 32
AUTH = {"authorization": f"Bearer {KEY}"}
TOKENS = {"Create": tokens_pb2.AccessToken, "Rotate": tokens_pb2.AccessToken, "Delete": tokens_pb2.AccessToken,
          "List": tokens_pb2.ListTokensResponse}  # fmt: skip

Asked = list[tuple[str, dict[str, Any]]]


def _noting(base: type, answers: dict[str, type], asked: Asked) -> Any:
    """A server of an API that notes what it is asked and answers nothing of interest."""

    def method(name: str, answer: type) -> Any:
        async def called(self: Any, request: Any, context: Any) -> Any:
            asked.append((name, MessageToDict(request, preserving_proto_field_name=True)))
            return answer()

        return called

    return type("Noting", (base,), {name: method(name, answer) for name, answer in answers.items()})()


@pytest.fixture
async def asked(short_path: Path, xds: Rig) -> AsyncIterator[tuple[Asked, str]]:
    """What was asked so far, and the control address of an Envoy before the two APIs."""
    found: Asked = []
    keyring = Keyring(None)
    keyring.learn(KeyState(id="test", sha256=sha256_hex(KEY)))
    server = Server(f"unix:{short_path}/control.sock", keyring)
    tokens = _noting(tokens_pb2_grpc.TokensServicer, TOKENS, found)
    server.add(tokens_pb2_grpc.add_TokensServicer_to_server, tokens, "easel.v1.Tokens")
    mirrors = _noting(mirrors_pb2_grpc.MirrorsServicer, dict.fromkeys(("Get", "Set", "Delete"), mirrors_pb2.Mirror),
                      found)  # fmt: skip
    server.add(mirrors_pb2_grpc.add_MirrorsServicer_to_server, mirrors, "easel.v1.Mirrors")
    await server.start()
    envoy = await xds.envoy(process_addrs={"control": server.address})
    yield found, envoy.control_url + "/v1"
    await server.stop(0)


@pytest.mark.parametrize("owner", ["service", "group"])
async def test_paths_of_tokens(asked: tuple[Asked, str], client: aiohttp.ClientSession, owner: str) -> None:
    found, base = asked
    tokens = f"{base}/{owner}s/ocr/tokens"
    body = {"name": "mobile", "expires_in_s": "60", "rate_limit": 5}

    for method, url, sent in (
        ("GET", tokens, None), ("POST", tokens, body),
        ("POST", f"{tokens}/default.1:rotate", {"overlap_s": "30"}), ("DELETE", f"{tokens}/mobile", None),
    ):  # fmt: skip
        async with client.request(method, url, headers=AUTH, json=sent) as answer:
            assert answer.status == 200, await answer.text()

    assert found == [
        ("List", {owner: "ocr"}), ("Create", {owner: "ocr"} | body),
        ("Rotate", {owner: "ocr", "name": "default.1", "overlap_s": "30"}),
        ("Delete", {owner: "ocr", "name": "mobile"}),
    ]  # fmt: skip


async def test_paths_of_mirrors(asked: tuple[Asked, str], client: aiohttp.ClientSession) -> None:
    """Also numbers that JSON has no word for, which are control's to refuse."""
    found, base = asked
    body = {"targets": ["echo"], "percent": "NaN", "compare": {"ignore": ["a[].b"], "no_side_effects": True}}

    for method, sent in (("GET", None), ("POST", body), ("DELETE", None)):
        async with client.request(method, f"{base}/services/ocr/mirror", headers=AUTH, json=sent) as answer:
            assert answer.status == 200, await answer.text()
            assert isinstance(json.loads(await answer.text()), dict)

    assert found == [("Get", {"name": "ocr"}), ("Set", {"name": "ocr"} | body), ("Delete", {"name": "ocr"})]
