"""Drain on a real router and Envoy: long requests and streams end as they would have; the router away costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_kit.testing import eventually

from .backends import Backend, backends
from .platform import Platform, platform

AUTH = {"authorization": "tok"}
TALK = "/test.Talk/Talk"


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(2) as made:
        yield made


async def drained(easel: Platform, replica: str) -> None:
    """Waits until it is told."""
    await eventually(lambda: replica in easel.drained())


async def replaced(easel: Platform, old: Backend, new: Backend) -> tuple[str, str]:
    """A second replica, and the first draining: (old, new)."""
    first = await easel.replica("ocr", old.port)
    second = await easel.replica("ocr", new.port)
    await easel.applied("ocr", first, second)
    await easel.replica("ocr", old.port, "draining", drain_number=1)
    await easel.applied("ocr", second, draining=(first,))
    return first, second


async def test_an_event_stream_is_not_cut(easel: Platform, servers: list[Backend]) -> None:
    """It goes on to its end on the replica that drains; then, and not before, that is told."""
    old, new = servers
    await easel.service("ocr")
    await easel.applied("ocr", await easel.replica("ocr", old.port))
    url = easel.envoys[0].url + "/api/predict/ocr/sse?gap=0.4"
    headers = AUTH | {"accept": "text/event-stream"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert b"data: 0" in await answer.content.readline()
        first, _ = await replaced(easel, old, new)
        assert easel.drained() == []
        rest = await answer.text()

    assert rest.count("data:") == 4
    await drained(easel, first)


async def test_a_websocket_is_not_cut(easel: Platform, servers: list[Backend]) -> None:
    """It talks to the old replica until it is closed; a new one goes to the new replica."""
    old, new = servers
    await easel.service("ocr")
    await easel.applied("ocr", await easel.replica("ocr", old.port))
    url = easel.envoys[0].url.replace("http", "ws") + "/api/predict/ocr/ws"
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url, headers=AUTH) as ws:
            await ws.send_str("before")
            assert await ws.receive_str() == "b0:before"
            first, _ = await replaced(easel, old, new)
            await ws.send_str("while")
            assert await ws.receive_str() == "b0:while"
            assert easel.drained() == []
        await drained(easel, first)
        async with session.ws_connect(url, headers=AUTH) as ws:
            await ws.send_str("after")
            assert await ws.receive_str() == "b1:after"


class _Talk(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers every message of a stream with its name before it."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def talk(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in messages:
                yield self._name + message

        return grpc.stream_stream_rpc_method_handler(talk)


async def grpc_server(name: bytes) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Talk(name),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def talk(channel: Any) -> Any:
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    return channel.stream_stream(TALK)(metadata=metadata)


async def test_a_grpc_stream_is_not_cut(easel: Platform) -> None:
    """Both directions go on with the old replica; new calls reach the new one."""
    (old, old_port), (new, new_port) = await grpc_server(b"old:"), await grpc_server(b"new:")
    await easel.service("ocr", grpc=True)
    first = await easel.replica("ocr", old_port)
    await easel.applied("ocr", first)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{easel.envoys[0].data_port}") as channel:
            call = talk(channel)
            await call.write(b"before")
            assert await call.read() == b"old:before"
            second = await easel.replica("ocr", new_port)
            await easel.applied("ocr", first, second)
            await easel.replica("ocr", old_port, "draining", drain_number=1)
            await easel.applied("ocr", second, draining=(first,))
            await call.write(b"while")
            assert await call.read() == b"old:while"
            other = talk(channel)
            await other.write(b"after")
            assert await other.read() == b"new:after"
            assert easel.drained() == []
            await call.done_writing()
            await other.done_writing()
            await drained(easel, first)
    finally:
        await old.stop(0)
        await new.stop(0)


@pytest.mark.parametrize("away_s", [0.0, pytest.param(60.0, marks=pytest.mark.soak)])
async def test_a_replica_dies_while_the_router_is_away(easel: Platform, servers: list[Backend], away_s: float) -> None:
    """Envoy alone leaves the dead one out: of what is safe to repeat nothing is lost, for as long as it takes."""
    await easel.service("ocr")
    one, other = await easel.replica("ocr", servers[0].port), await easel.replica("ocr", servers[1].port)
    await easel.applied("ocr", one, other)
    await easel.kill_router()
    statuses = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), headers=AUTH) as session:

        async def ask(least: int, until: float = 0.0) -> None:
            asked = 0
            while asked < least or asyncio.get_running_loop().time() < until:
                async with session.get(easel.envoys[0].url + "/api/predict/ocr") as answer:
                    statuses.append(answer.status)
                asked += 1

        await asyncio.gather(*(ask(50) for _ in range(4)))
        await servers[0].stop()
        until = asyncio.get_running_loop().time() + away_s
        await asyncio.gather(*(ask(200, until) for _ in range(4)))
        await easel.start_router()
        await easel.replica("ocr", servers[0].port, "failed")
        await asyncio.gather(easel.applied("ocr", other), ask(200))

    assert len(statuses) >= 1200
    assert set(statuses) == {200}


async def test_a_held_request_is_answered_by_both_envoys(easel: Platform, servers: list[Backend]) -> None:
    """Two Envoys on one port: whoever holds it lets it go, and endpoints count as told only when both have them."""
    other = await easel.start_envoy("envoy-1", easel.envoys[0].data_port)
    await easel.service("ocr")
    await easel.holding("ocr")

    async def both() -> bool:
        await easel.service("ocr", "updated")
        return bool(easel.routes("ocr")) and easel.routes("ocr")[-1].envoys == 2

    await eventually(both)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), headers=AUTH) as session:

        async def ask() -> int:
            async with session.post(other.url + "/api/predict/ocr", data=b"x") as answer:
                return answer.status

        waiting = [asyncio.create_task(ask()) for _ in range(40)]
        await eventually(lambda: sum(m.held for m in easel.held[-1:]) == 40)
        replica = await easel.replica("ocr", servers[0].port)
        assert await asyncio.gather(*waiting) == [200] * 40
        found = await easel.applied("ocr", replica)
        assert found.envoys == 2
