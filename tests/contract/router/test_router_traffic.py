"""What happens to requests on a real Envoy: errors that explain, limits, retries counted, streams, gRPC, drain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_router.testing import Envoy, Rig, a_plan, free_port, until
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.catalog import Versions
from easel_router.xds.clusters import grpc_cluster
from easel_router.xds.messages import ROUTE
from easel_router.xds.refusals import Refused
from tests.flow.router.backends import Backend

Client = aiohttp.ClientSession
AUTH = {"authorization": "tok"}


async def ask(
    client: Client, envoy: Envoy, path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any
) -> tuple[int, dict[str, Any]]:
    async with client.request(method, envoy.url + path, headers=AUTH | (headers or {}), **more) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith("{") else {"text": text}


async def test_errors_say_why_and_what_to_do(xds: Rig, envoy: Envoy, client: Client) -> None:
    """Each has code, message, request id, and a hint."""
    await xds.acknowledged(xds.put(a_plan("empty")))
    await xds.acknowledged(xds.put(a_plan("dead", free_port(), retry="off")))
    found = {
        path: await ask(client, envoy, f"/api/predict/{path}", headers={"x-request-id": "mine"})
        for path in ("nope", "empty", "dead")
    }

    assert {path: (status, body["code"]) for path, (status, body) in found.items()} == {
        "nope": (404, "NotFound"),
        "empty": (503, "NoReadyReplica"),
        "dead": (503, "ReplicaUnreachable"),
    }
    for _, body in found.values():
        assert body["hint"]
        assert body["request_id"]
    assert "empty has no replica" in found["empty"][1]["message"]
    assert "`easel explain empty`" in found["empty"][1]["hint"]
    assert "`easel w dead`" in found["dead"][1]["hint"]
    assert "/api/predict/nope" in found["nope"][1]["message"]


async def test_nobody_is_asked_about_what_is_not_held(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Nor does a replica see what Envoy needs for those that are: of its own headers only what the model can use."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    found = [await ask(client, envoy, path) for path in ("/api/predict/ocr", "/api/predict/ocr?x=1")]

    assert [(status, body["path"]) for status, body in found] == [(200, "/"), (200, "/?x=1")]
    assert xds.asked == []
    made = {name.lower() for name in servers[0].headers if name.lower().startswith("x-")}
    assert made == {"x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-envoy-attempt-count"}


async def test_the_hold_listener_knows_whose_request_it_is(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """By the address that it was called at, whatever the request says."""
    other = servers[0]
    await xds.acknowledged(xds.put(a_plan("other", other.port)))
    await xds.acknowledged(xds.put(a_plan("dead", free_port())))
    for name in ("dead", "other"):
        await ask(client, envoy, f"/api/predict/{name}", headers={"x-easel-service": "other"})

    assert {asked.service for asked in xds.asked} == {"dead"}
    assert all(asked.retried for asked in xds.asked)
    assert other.executions["/"] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_limit_is_to_the_first_byte_and_not_multiplied(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, method: str
) -> None:
    """408 names the limit; the model was asked once."""
    ports = [s.port for s in servers]
    await xds.acknowledged(xds.put(a_plan("ocr", *ports, keepalive_ms=700)))
    started = asyncio.get_running_loop().time()
    status, body = await ask(client, envoy, "/api/predict/ocr/sleep?s=10", method, {"x-id": method})
    took_s = asyncio.get_running_loop().time() - started

    assert (status, body["code"]) == (408, "RequestTimeout")
    assert "0.7 s" in body["message"]
    assert 0.65 < took_s < 1.3
    assert sum(s.executions[method] for s in servers) == 1


async def test_slow_replicas_are_not_taken_for_dead(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """However many requests run into the limit, the next quick one is answered."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, servers[1].port, keepalive_ms=200)))
    slow = [ask(client, envoy, "/api/predict/ocr/sleep?s=5", "POST") for _ in range(40)]
    assert {status for status, _ in await asyncio.gather(*slow)} == {408}
    quick = [await ask(client, envoy, "/api/predict/ocr", "POST") for _ in range(20)]

    assert {status for status, _ in quick} == {200}


async def test_streams_live_longer_than_the_limit(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Server-sent events and WebSockets, with silences longer than `keepalive_ms`."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, keepalive_ms=300)))
    headers = {"accept": "text/event-stream"}
    _, events = await ask(client, envoy, "/api/predict/ocr/sse?gap=0.4", headers=headers)
    _, producing = await ask(client, envoy, "/api/predict/ocr/sse?gap=0.2")
    async with client.ws_connect(envoy.url + "/api/predict/ocr/ws?gap=0.5", headers=AUTH) as socket:
        await socket.send_str("one")
        assert await socket.receive_str() == "b0:one"
        await asyncio.sleep(0.6)
        await socket.send_str("two")
        assert await socket.receive_str() == "b0:two"

    assert events["text"].count("data:") == 5
    assert producing["text"].count("data:") == 5


async def test_websocket_at_the_bare_path_with_a_query(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """The route is found although the path ends with the service's name and a query."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(envoy.url + "/api/predict/ocr?x=1", headers=AUTH)

    assert refused.value.status == 200  # reached the model, which speaks no WebSocket there


@pytest.mark.parametrize(
    ("retry", "method", "headers", "status", "executions"),
    [
        ("pre_send", "GET", {}, 200, 2),
        ("pre_send", "PUT", {}, 200, 2),
        ("pre_send", "POST", {}, 503, 1),
        ("pre_send", "PATCH", {}, 503, 1),
        ("pre_send", "POST", {"idempotency-key": "k"}, 200, 2),
        ("safe", "POST", {}, 200, 2),
        ("off", "GET", {}, 503, 1),
        ("off", "POST", {"idempotency-key": "k"}, 503, 1),
    ],
)
async def test_killed_replica(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, retry: str, method: str, headers: dict[str, str],
    status: int, executions: int,
) -> None:  # fmt: skip
    """A request in flight at a replica that dies runs again only where that is allowed; executions are counted."""
    dies, lives, _ = servers
    await xds.acknowledged(xds.put(a_plan("ocr", dies.port, retry=retry)))
    running = asyncio.create_task(
        ask(client, envoy, "/api/predict/ocr/wait", method, {"x-id": "it", **headers}, data=b"x" * 1000)
    )
    await until(lambda: dies.active == 1, "in flight")
    await xds.acknowledged(xds.put(a_plan("ocr", dies.port, lives.port, retry=retry)))
    lives.release()
    await dies.stop()
    found, body = await running

    assert (found, dies.executions["it"] + lives.executions["it"]) == (status, executions), body
    if status == 503:
        assert body["code"] == "ReplicaGone", body


async def test_refused_connections_are_retried_whatever_the_method(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Nothing was sent, so nothing can run twice: no POST fails while one of two replicas is gone."""
    gone = free_port()
    await xds.acknowledged(xds.put(a_plan("ocr", gone, servers[0].port)))
    answers = await asyncio.gather(
        *(ask(client, envoy, "/api/predict/ocr", "POST", {"x-id": str(n)}, data=b"x") for n in range(100))
    )

    assert [status for status, _ in answers] == [200] * 100
    assert set(servers[0].executions.values()) == {1}


async def test_a_models_own_error_is_its_answer(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """500 is passed on as it is, asked once, and the replica stays in."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    for _ in range(10):
        status, body = await ask(client, envoy, "/api/predict/ocr/status?code=500")
        assert (status, body["text"]) == (500, "as asked")

    assert servers[0].executions["/status"] == 10


async def test_large_bodies_pass(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Larger than the replay buffer: streams once, unharmed."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    status, body = await ask(client, envoy, "/api/predict/ocr", "POST", data=b"x" * (20 << 20))

    assert (status, body["body_bytes"]) == (200, 20 << 20)


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers any unary call with what it got, any `Stream` call twice."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            return request

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield request
            await asyncio.sleep(0.5)
            yield request

        if str(details.method).endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def test_grpc_models(xds: Rig, envoy: Envoy) -> None:
    """Unary and streaming, the service named in metadata; a wrong token is UNAUTHENTICATED.

    Where gRPC is not enabled the caller learns what to set.
    """
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    await xds.acknowledged(xds.put(a_plan("ocr", port, keepalive_ms=300)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.data_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as not_enabled:
            await channel.unary_unary("/pkg.Model/Predict", None, None)(b"hi", metadata=metadata)
    await xds.acknowledged(xds.put(a_plan("ocr", port, keepalive_ms=300, grpc=True)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.data_port}") as channel:
        unary = await channel.unary_unary("/pkg.Model/Predict", None, None)(b"hi", metadata=metadata)
        stream = [m async for m in channel.unary_stream("/pkg.Model/Stream", None, None)(b"hi", metadata=metadata)]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/pkg.Model/Predict", None, None)(
                b"hi", metadata=(("authorization", "x"), metadata[1])
            )
    await server.stop(0)

    assert (unary, stream) == (b"hi", [b"hi", b"hi"])
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "metadata.enable_grpc" in (not_enabled.value.details() or "")


async def test_in_flight_of_one_address_is_known(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Load reports count per endpoint, also while it is DRAINING; then zero."""
    first, second, _ = servers
    await xds.acknowledged(xds.put(a_plan("ocr", first.port)))
    running = [asyncio.create_task(ask(client, envoy, "/api/predict/ocr/wait")) for _ in range(3)]
    await until(lambda: first.active == 3, "in flight")
    await xds.acknowledged(xds.put(a_plan("ocr", first.port, second.port, draining=(first.port,))))
    clusters = ("ocr", grpc_cluster("ocr"))
    address = ("127.0.0.1", first.port)
    with xds.loads.watching(clusters):
        busy = await asyncio.wait_for(xds.loads.next_in_flight(envoy.node_id, clusters, address), 10)
        first.release()
        assert {status for status, _ in await asyncio.gather(*running)} == {200}
        idle = await asyncio.wait_for(xds.loads.next_in_flight(envoy.node_id, clusters, address), 10)

    assert (busy, idle) == (3, 0)


async def test_one_refused_resource_harms_no_other(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Envoy refuses a whole message; the good ones of it become live all the same, the bad one stays as it was."""
    await xds.acknowledged(xds.put(a_plan("bad", servers[0].port)))
    stream = xds.server.streams[envoy.node_id]
    good: list[Versions] = [xds.put(a_plan(name, servers[0].port)) for name in ("before", "zafter")]
    version = xds.catalog.put(ROUTE, "bad", _broken(xds))
    for wanted in good:
        await xds.acknowledged(wanted)
    with pytest.raises(Refused):
        await asyncio.wait_for(stream.acknowledged({ROUTE: {"bad": version}}), 5)

    for name in ("before", "bad", "zafter"):
        assert (await ask(client, envoy, f"/api/predict/{name}"))[0] == 200, name
    assert list(stream.refusals()) == ["bad"]


def _broken(xds: Rig) -> bytes:
    """The route as it is, but with a prefix Envoy's validation refuses (no domains)."""
    packed = xds.catalog.get(ROUTE, "bad")
    assert packed is not None
    scope = pb.ScopedRouteConfiguration.FromString(packed.body)
    del scope.route_configuration.virtual_hosts[0].domains[:]
    return scope.SerializeToString()


async def test_a_cluster_may_change_while_its_replicas_do_not(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Envoy takes it over and acknowledges: a route that follows is not waited for in vain."""
    for keep_alive_s in (None, 1.0, 2.0):
        await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, keep_alive_s=keep_alive_s)))

    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 200


async def test_endpoints_go_with_the_last_replica(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Clusters are only sent for services with replicas; back and forth without a restart."""
    for ports in ((servers[0].port,), (), (servers[1].port,)):
        await xds.acknowledged(xds.put(a_plan("ocr", *ports)))
        status, _ = await ask(client, envoy, "/api/predict/ocr")
        assert status == (200 if ports else 503)


async def test_secret_files_and_sockets(xds: Rig, envoy: Envoy, short_path: Path) -> None:
    """The admin interface and the probe's socket are the owner's alone."""
    modes = {name: (short_path / name).stat().st_mode & 0o777 for name in ("envoy-0.admin", "envoy-0.probe")}

    assert set(modes.values()) == {0o600}
