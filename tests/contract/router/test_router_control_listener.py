"""The control listener: gRPC to its owner, REST by the transcoder, streams, errors as JSON, without the router."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from easel_contracts.errors import FieldError, InvalidInput, NotFound
from easel_contracts.facts import KeyState
from easel_kit.grpc import Server
from easel_kit.keyring import Keyring, sha256_hex
from easel_kit.testing import eventually
from easel_proto.v1 import (
    common_pb2,
    groups_pb2,
    groups_pb2_grpc,
    metrics_pb2,
    metrics_pb2_grpc,
    services_pb2,
    services_pb2_grpc,
)
from easel_router.testing import Envoy, Rig

KEY = "ek_test_" + "0" * 32
AUTH = {"authorization": f"Bearer {KEY}"}


class _Services(services_pb2_grpc.ServicesServicer):
    GetInfo: Any = None
    List: Any = None
    Update: Any = None
    Delete: Any = None
    Start: Any = None
    Stop: Any = None
    Restart: Any = None
    Scale: Any = None
    SwitchRevision: Any = None
    ChangeRollout: Any = None
    Clone: Any = None
    Lock: Any = None
    DiffRevisions: Any = None
    ListRevisions: Any = None
    GetSchema: Any = None
    UploadCode: Any = None

    async def Get(self, request: Any, context: Any) -> Any:
        if request.name != "ocr":
            raise NotFound("SERVICE_NOT_FOUND", f"there is no service {request.name!r}", "`easel ls`")
        return services_pb2.Service(service_name="ocr")

    async def Create(self, request: Any, context: Any) -> Any:
        raise InvalidInput("wrong", (FieldError(path="cpu", code="WRONG_TYPE", message="no"),))

    async def Explain(self, request: Any, context: Any) -> Any:
        return common_pb2.Explanation(part="control", lines=[common_pb2.Why(code="X", message=request.name)])


class _Metrics(metrics_pb2_grpc.MetricsServicer):
    Get: Any = None
    Explain: Any = None

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for _ in range(3):
            yield metrics_pb2.MetricsPoint()
            await asyncio.sleep(0.05)


class _Groups(groups_pb2_grpc.GroupsServicer):
    List: Any = None

    async def Get(self, request: Any, context: Any) -> Any:
        return groups_pb2.Group(name=request.name)

    async def Update(self, request: Any, context: Any) -> Any:
        return groups_pb2.Group(name=request.name, traffic_mode=request.traffic_mode, rate_limit=request.rate_limit)

    async def Release(self, request: Any, context: Any) -> Any:
        weight = request.weight if request.HasField("weight") else -7
        return groups_pb2.Group(members=[groups_pb2.GroupMember(service=request.service, weight=weight)])

    async def Explain(self, request: Any, context: Any) -> Any:
        return common_pb2.Explanation(lines=[common_pb2.Why(code="Group", message=request.name)])


@pytest.fixture
async def control(short_path: Path) -> AsyncIterator[str]:
    """A real server of ours with three public APIs; its address."""
    keyring = Keyring(None)
    keyring.learn(KeyState(id="test", sha256=sha256_hex(KEY)))
    server = Server(f"unix:{short_path}/control.sock", keyring)
    server.add(services_pb2_grpc.add_ServicesServicer_to_server, _Services(), "easel.v1.Services")
    server.add(groups_pb2_grpc.add_GroupsServicer_to_server, _Groups(), "easel.v1.Groups")
    server.add(metrics_pb2_grpc.add_MetricsServicer_to_server, _Metrics(), "easel.v1.Metrics")
    await server.start()
    yield server.address
    await server.stop(0)


@pytest.fixture
async def envoy(xds: Rig, control: str) -> Envoy:
    return await xds.envoy(process_addrs={"control": control, "monitor": control, "router": "unix:/nowhere.sock"})


async def ask(
    client: aiohttp.ClientSession, url: str, method: str = "GET", headers: dict[str, str] = AUTH, **more: Any
) -> tuple[int, Any]:
    async with client.request(method, url, headers=headers, **more) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text[:1] in "{[" and text else text


async def test_rest(envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """Names are snake_case, paths and verbs are the proto's, empty fields are there."""
    status, body = await ask(client, envoy.control_url + "/v1/services/ocr")
    explained, why = await ask(client, envoy.control_url + "/v1/services/ocr:explain?workspace=default")

    assert (status, body["service_name"]) == (200, "ocr")
    assert not any(c.isupper() for key in body for c in key)
    assert (explained, why["lines"][0]["message"]) == (200, "ocr")


async def test_rest_of_groups(envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """A release is under the service's path, and answered by the API of groups; what is not sent is not 0."""
    base = envoy.control_url + "/v1"
    _, released = await ask(client, base + "/services/ocr:release", "POST", json={"weight": 0})
    _, plain = await ask(client, base + "/services/ocr:release", "POST", json={"traffic_state": "standalone"})
    _, updated = await ask(client, base + "/groups/letters", "PATCH", json={"rate_limit": 5})
    _, found = await ask(client, base + "/groups/letters")
    _, why = await ask(client, base + "/groups/letters:explain")

    assert [(m["service"], m["weight"]) for m in released["members"]] == [("ocr", 0)]
    assert plain["members"][0]["weight"] == -7
    assert (updated["name"], updated["rate_limit"]) == ("letters", 5)
    assert (found["name"], why["lines"][0]["message"]) == ("letters", "letters")


async def test_errors_are_json(envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """google.rpc.Status with its details; HTTP's own codes."""
    missing, body = await ask(client, envoy.control_url + "/v1/services/nope")
    invalid, fields = await ask(client, envoy.control_url + "/v1/services", "POST", json={})
    nobody, _ = await ask(client, envoy.control_url + "/v1/services/ocr", headers={})
    broken, _ = await ask(client, envoy.control_url + "/v1/services", "POST", data=b"{no json")

    assert (missing, body["code"], "nope" in body["message"]) == (404, 5, True)
    assert body["details"][0]["reason"] == "SERVICE_NOT_FOUND"
    assert (invalid, "cpu" in json.dumps(fields)) == (400, True)
    assert (nobody, broken) == (401, 400)


async def test_streams_are_lines(envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """One JSON object per line."""
    async with client.get(envoy.control_url + "/v1/services/ocr/metrics:watch", headers=AUTH) as answer:
        lines = (await answer.text()).strip().splitlines()
        assert (answer.status, len(lines)) == (200, 3), lines

    assert all("qps" not in json.loads(line) for line in lines)  # absent stays absent: unknown is not zero


async def test_grpc_health_and_reflection(envoy: Envoy) -> None:
    """The same port speaks gRPC; health is free."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.control_port}") as channel:
        stub = services_pb2_grpc.ServicesStub(channel)
        found = await stub.Get(services_pb2.GetServiceRequest(name="ocr"), metadata=tuple(AUTH.items()))
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())

    assert (found.service_name, health.status) == ("ocr", health_pb2.HealthCheckResponse.SERVING)


async def test_a_browser_gets_a_page(envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """It says what this port is; other paths and dead owners are told as JSON."""
    async with client.get(envoy.control_url + "/") as answer:
        assert answer.content_type == "text/html"
        assert "control port" in await answer.text()
    status, body = await ask(client, envoy.control_url + "/nothing/here")
    dead, why = await ask(client, envoy.control_url + "/v1/services/ocr/route")

    assert (status, body["code"]) == (404, 5)
    assert (dead, why["code"]) == (503, 14)


async def a_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    made = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", "/CN=easel", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await made.wait() == 0
    return cert, key


async def test_tls(xds: Rig, control: str, short_path: Path, client: aiohttp.ClientSession) -> None:
    """With a certificate both listeners speak TLS, and nothing else."""
    cert, key = await a_certificate(short_path)
    envoy = await xds.envoy(process_addrs={"control": control}, tls_cert=str(cert), tls_key=str(key))
    trust = ssl.create_default_context(cafile=str(cert))
    control_status, _ = await ask(client, f"https://127.0.0.1:{envoy.control_port}/v1/services/ocr", ssl=trust)

    async def data_status() -> int:
        """The data listener comes by discovery, a moment after the control listener."""
        try:
            status, _ = await ask(client, f"https://127.0.0.1:{envoy.data_port}/api/predict/x", ssl=trust)
        except aiohttp.ClientConnectorError:
            return 0
        return int(status)

    assert await eventually(data_status) == 404
    with pytest.raises(aiohttp.ClientError):
        await ask(client, envoy.url + "/api/predict/x")

    assert control_status == 200
