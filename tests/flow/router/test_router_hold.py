"""Held requests on a real router, Envoy, NATS and PostgreSQL: nothing is lost on the way from no replica to one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest

from easel_kit.grpc import channel
from easel_kit.testing import eventually
from easel_proto.internal.v1 import router_pb2, router_pb2_grpc
from easel_proto.v1 import routes_pb2, routes_pb2_grpc

from .backends import Backend, backends
from .platform import KEY, Platform, platform

AUTH = {"authorization": "tok"}
Answer = tuple[int, dict[str, Any], dict[str, str]]


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


class Calls:
    """Requests of one client through one Envoy; none is ever repeated."""

    def __init__(self, client: aiohttp.ClientSession, easel: Platform) -> None:
        self._client, self._easel = client, easel

    async def call(self, path: str = "/api/predict/ocr", method: str = "GET", **more: Any) -> Answer:
        headers = AUTH | more.pop("headers", {})
        async with self._client.request(method, self._easel.envoys[0].url + path, headers=headers, **more) as answer:
            text = await answer.text()
            body = json.loads(text) if text.startswith("{") else {"text": text}
            return answer.status, body, {k.lower(): v for k, v in answer.headers.items()}

    def begin(self, path: str = "/api/predict/ocr", method: str = "GET", **more: Any) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.call(path, method, **more))


@pytest.fixture
def calls(client: aiohttp.ClientSession, easel: Platform) -> Calls:
    return Calls(client, easel)


async def route_of(easel: Platform, service: str = "ocr") -> routes_pb2.Route | None:
    """What the router says; None while it does not answer."""
    metadata = (("authorization", f"Bearer {KEY}"),)
    async with channel(easel.env["EASEL_ROUTER_ADDR"]) as opened:
        try:
            stub = routes_pb2_grpc.RoutesStub(opened)
            return await stub.Get(routes_pb2.GetRouteRequest(name=service), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED):
                return None  # not up yet, or keys not loaded yet
            raise


async def held(easel: Platform, count: int, service: str = "ocr") -> None:
    """Waits until so many requests wait at the router."""

    async def check() -> bool:
        route = await route_of(easel, service)
        return route is not None and route.held == count

    await eventually(check)


async def test_everything_waits_and_nothing_is_lost(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """GET, POST, a body of 3 MB, an event stream and a WebSocket wait at zero and are answered when a replica comes."""
    await easel.service("ocr", reason="ScaledToZero")
    await easel.holding("ocr")
    waiting = [
        calls.begin("/api/predict/ocr?a=b"),
        calls.begin(method="POST", data=b"x" * 1000, headers={"x-id": "small"}),
        calls.begin(method="POST", data=b"x" * 3_000_000, headers={"x-id": "large"}),
        calls.begin("/api/predict/ocr/sse?gap=0.01", headers={"accept": "text/event-stream"}),
    ]
    socket = asyncio.create_task(_echo(easel))
    await held(easel, 5)
    await eventually(lambda: easel.held and easel.held[0].held >= 1)

    replica = await easel.replica("ocr", servers[0].port)
    answers = await asyncio.gather(*waiting)
    echoed = await socket
    await easel.applied("ocr", replica)

    assert [status for status, _, _ in answers] == [200] * 4
    assert answers[2][1]["body_bytes"] == 3_000_000
    assert answers[3][1]["text"].count("data:") == 5
    assert echoed == "b0:hello"
    assert (servers[0].executions["small"], servers[0].executions["large"]) == (1, 1)
    positions = sorted(int(headers["easel-queue-position"]) for _, _, headers in answers)
    assert positions[0] >= 1
    assert positions[-1] <= 5
    assert "easel-queue-position" not in (await calls.call())[2]


async def _echo(easel: Platform) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(easel.envoys[0].url.replace("http", "ws") + "/api/predict/ocr/ws", headers=AUTH) as ws,
    ):
        await ws.send_str("hello")
        return await ws.receive_str(timeout=20)


async def test_strangers_are_not_held(easel: Platform, calls: Calls) -> None:
    """Without the token there is no place in the line."""
    await easel.service("ocr", reason="ScaledToZero")
    await easel.holding("ocr")

    assert (await calls.call(headers={"authorization": "wrong"}))[0] == 401
    assert easel.held == []


async def test_two_thousand_wait(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """All are answered, each executed once."""
    await easel.service("ocr")
    await easel.holding("ocr")
    waiting = [calls.begin(method="POST", data=b"x", headers={"x-id": f"r{n}"}) for n in range(2000)]
    await held(easel, 2000)
    await easel.replica("ocr", servers[0].port)
    answers = await asyncio.gather(*waiting)

    assert {status for status, _, _ in answers} == {200}
    assert set(servers[0].executions.values()) == {1}
    assert len(servers[0].executions) == 2000


async def test_positions_are_told(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """Also when the router was killed while they waited."""
    await easel.service("ocr")
    await easel.holding("ocr")
    waiting = []
    for n in range(6):
        waiting.append(calls.begin(method="POST", data=b"x", headers={"x-id": f"r{n}"}))
        await held(easel, n + 1)
    await easel.kill_router()
    await easel.start_router()
    await held(easel, 6)
    await easel.replica("ocr", servers[0].port)
    answers = await asyncio.gather(*waiting)

    assert [status for status, _, _ in answers] == [200] * 6
    assert all(1 <= int(headers["easel-queue-position"]) <= 6 for _, _, headers in answers)


async def test_full_hopeless_and_not_intercepted(easel: Platform, calls: Calls) -> None:
    """503 with Retry-After and the reason; whoever waits when it turns hopeless is told too."""
    await easel.service("ocr", hold_max_requests=1)
    await easel.holding("ocr")
    first = calls.begin()
    await held(easel, 1)
    status, body, headers = await calls.call()
    assert (status, body["code"]) == (503, "HoldQueueFull")
    assert int(headers["retry-after"]) >= 1
    assert body["request_id"]
    assert headers["content-type"].startswith("application/json")

    await easel.service("ocr", "status_changed", status="Failed", message="replica x crashes in a loop")
    status, body, headers = await first
    assert (status, body["code"]) == (503, "ServiceFailed")
    assert "crashes in a loop" in body["message"]
    assert (await calls.call())[1]["code"] == "ServiceFailed"

    await easel.service("woken", reason="ScaledToZero", intercept=False)
    await easel.holding("woken")
    easel.held.clear()
    assert (await calls.call("/api/predict/woken"))[1]["code"] == "WakingUp"
    await eventually(lambda: [m.service for m in easel.held] == ["woken"])


async def test_nobody_waits_longer_than_the_limit(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """The service's own or the client's, router alive or dead; what is left of it holds for the replica too."""
    await easel.service("ocr", keepalive_ms=1500)
    await easel.holding("ocr")
    by_service, by_client = calls.begin(), calls.begin(headers={"easel-timeout-seconds": "0.3"}, method="POST")
    status, body, headers = await by_client
    assert (status, body["code"]) == (408, "RequestTimeout")
    assert "the client's own limit" in body["message"]
    assert headers["easel-queue-position"] == str(body["queue_position"])
    status, body, _ = await by_service
    assert (status, body["code"]) == (408, "RequestTimeout")
    assert "metadata.rpc.keepalive" in (body["message"] + body["hint"])

    late = [calls.begin(), calls.begin(method="POST")]
    await held(easel, 2)
    await easel.kill_router()
    assert [(status, body["code"]) for status, body, _ in await asyncio.gather(*late)] == [(408, "RequestTimeout")] * 2

    await easel.start_router()
    await held(easel, 0)
    slow = calls.begin("/api/predict/ocr/wait", method="POST")
    await held(easel, 1)
    await easel.replica("ocr", servers[0].port)
    status, body, _ = await slow
    assert (status, body["code"]) == (408, "RequestTimeout")


async def test_held_requests_survive_the_router(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """kill -9 while they wait, the replica comes while it is away."""
    await easel.service("ocr")
    await easel.holding("ocr")
    waiting = [calls.begin(method="POST", data=b"x", headers={"x-id": f"r{n}"}) for n in range(50)]
    await held(easel, 50)
    await easel.kill_router()
    await easel.replica("ocr", servers[0].port)
    await easel.start_router()
    answers = await asyncio.gather(*waiting)

    assert {status for status, _, _ in answers} == {200}
    assert set(servers[0].executions.values()) == {1}


async def test_the_last_replicas_crash_goes_the_same_way(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """It dies while requests flow, before anybody knows: what is safe to repeat and what was not sent waits."""
    await easel.service("ocr")
    first = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", first)
    assert (await calls.call())[0] == 200
    in_flight = [calls.begin("/api/predict/ocr/wait", headers={"x-id": f"get{n}"}) for n in range(5)]
    posts = [
        calls.begin("/api/predict/ocr/wait", method="POST", data=b"x", headers={"x-id": f"post{n}"}) for n in range(5)
    ]
    await eventually(lambda: servers[0].active == 10)

    await servers[0].stop()
    unsent = [calls.begin(method="POST", data=b"x", headers={"x-id": f"unsent{n}"}) for n in range(20)]
    lost = await asyncio.gather(*posts)
    assert {status for status, _, _ in lost} == {503}
    await easel.replica("ocr", servers[0].port, "failed")
    await easel.holding("ocr")
    later = [calls.begin(headers={"x-id": f"later{n}"}) for n in range(20)]
    await held(easel, 45)
    servers[1].release()
    await easel.replica("ocr", servers[1].port)
    answers = await asyncio.gather(*in_flight, *unsent, *later)

    assert {status for status, _, _ in answers} == {200}
    assert set(servers[1].executions.values()) == {1}
    assert not any(name.startswith("post") for name in servers[1].executions)


async def test_zero_in_two_phases(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """First new requests are held, then the last replica finishes what it has, then it is told drained."""
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", replica)
    running = calls.begin("/api/predict/ocr/wait")
    await eventually(lambda: servers[0].active == 1)
    await easel.replica("ocr", servers[0].port, "draining", drain_number=1)
    await easel.holding("ocr")
    new = calls.begin(headers={"x-id": "new"})
    await held(easel, 1)
    assert easel.drained() == []

    servers[0].release()
    assert (await running)[0] == 200
    await eventually(lambda: easel.drained() == [replica])
    await easel.replica("ocr", servers[0].port, "stopped")
    await easel.service("ocr", "status_changed", reason="ScaledToZero")
    await easel.replica("ocr", servers[1].port)
    assert (await new)[0] == 200
    assert servers[0].executions["new"] == 0


async def drained_times(easel: Platform, count: int) -> None:
    """Waits until so many replicas were told to have no request left."""
    await eventually(lambda: len(easel.drained()) == count)


async def test_isolated_and_back(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """Out of traffic it finishes what it has and is told drained, each time by number; then it serves again."""
    await easel.service("ocr")
    one = await easel.replica("ocr", servers[0].port)
    other = await easel.replica("ocr", servers[1].port)
    await easel.applied("ocr", one, other)
    for number in (1, 2):
        await easel.replica("ocr", servers[0].port, out_of_traffic="isolated", drain_number=number)
        await easel.applied("ocr", other, draining=(one,))
        await drained_times(easel, number)
        assert {(await calls.call())[1]["name"] for _ in range(6)} == {"b1"}
        await easel.replica("ocr", servers[0].port, drain_number=number)
        await easel.applied("ocr", one, other)
    numbers = [f.row_version for f in easel.told if f.entity == "traffic"]
    assert numbers == sorted(numbers)


async def test_in_flight_is_counted_per_replica(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """By the internal API, over all Envoys; only for the scheduler."""
    await easel.service("ocr")
    one = await easel.replica("ocr", servers[0].port)
    other = await easel.replica("ocr", servers[1].port)
    await easel.applied("ocr", one, other)
    running = [calls.begin("/api/predict/ocr/wait") for _ in range(3)]
    await eventually(lambda: servers[0].active + servers[1].active == 3)
    token = (easel.path / "scheduler.token").read_text()
    async with channel(easel.env["EASEL_ROUTER_ADDR"], token) as opened:
        stub = router_pb2_grpc.TrafficStub(opened)

        async def counted() -> bool:
            try:
                answer = await stub.InFlight(router_pb2.InFlightRequest(service="ocr"))
            except grpc.aio.AioRpcError as error:  # Envoy connects its load stream anew every 5 s
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return dict(answer.in_flight) == {one: servers[0].active, other: servers[1].active}

        await eventually(counted)
    async with channel(easel.env["EASEL_ROUTER_ADDR"], (easel.path / "monitor.token").read_text()) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match="only the scheduler"):
            await router_pb2_grpc.TrafficStub(opened).InFlight(router_pb2.InFlightRequest(service="ocr"))
    for server in servers:
        server.release()
    await asyncio.gather(*running)


async def test_cold_starts_are_learned(easel: Platform, servers: list[Backend], calls: Calls) -> None:
    """Phases of replicas seen, by revision; a held request is told what to expect, also after a restart."""
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port, phase_s={"schedule": 0.5, "start": 2.0})
    await easel.applied("ocr", replica)
    await easel.replica("ocr", servers[0].port, "stopped")
    await easel.holding("ocr")

    async def expected() -> bool:
        route = await route_of(easel)
        assert route is not None
        assert route.holding
        return route.cold_starts == 1 and route.cold_start_s["start"] == 2.0 and 2.5 <= route.expected_wait_s < 3.5

    await eventually(expected)
    await easel.kill_router()
    await easel.start_router()
    await eventually(lambda: easel.router_log().count('"serving"') == 2)
    await eventually(expected)
    waiting = calls.begin()
    await held(easel, 1)
    await easel.replica("ocr", servers[1].port)
    status, _, headers = await waiting
    assert status == 200
    assert float(headers["easel-expected-wait-seconds"]) > 2
