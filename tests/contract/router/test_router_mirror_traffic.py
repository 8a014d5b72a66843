"""Copies of requests on a real Envoy: who gets how many, what they carry, and that no caller ever feels a target."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Split
from easel_router.testing import PROBE_SECRET, Envoy, Rig, a_plan, free_port, until
from easel_router.xds.clusters import every_cluster
from easel_router.xds.mirroring import LARGEST_BODY, MAX_CONNECTIONS
from tests.flow.router.backends import Backend

AUTH = {"authorization": "tok"}
Client = aiohttp.ClientSession
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(client: Client, envoy: Envoy, path: str = "/api/predict/ocr", **more: Any) -> tuple[int, float]:
    """Status, and seconds that it took."""
    began = asyncio.get_running_loop().time()
    headers = AUTH | more.pop("headers", {})
    async with client.request(more.pop("method", "POST"), envoy.url + path, headers=headers, **more) as answer:
        await answer.read()
        return answer.status, asyncio.get_running_loop().time() - began


async def mirrored(xds: Rig, source: Backend, *targets: int, percent: float = 100.0, target: str = "copy") -> None:
    """`ocr` mirrors to `target`, whose replicas listen at these ports."""
    await xds.acknowledged(xds.put(a_plan(target, *targets, shadows=("all",))))
    mirroring = Mirroring(targets=(target,), percent=percent)
    await xds.acknowledged(xds.put(a_plan("ocr", source.port, mirroring=mirroring)))


class Misbehaving:
    """A target that is no proper server."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self.port = self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any] | None] = set()

    async def __aenter__(self) -> Misbehaving:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *args: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            if task is not None:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._behaviour(reader, writer)
        writer.transport.abort()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the connection and never reads."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and answers after five seconds."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(5)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()


async def resetting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Cuts the connection in the middle of the request."""
    await reader.read(100)


async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers 503 at once, whatever is still to come."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Oh No\r\ncontent-length: 0\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(1)


@pytest.mark.parametrize("behaviour", [silent, slow, resetting, failing])
@pytest.mark.parametrize("body", [1, 3 << 20, LARGEST_BODY, 40 << 20])
async def test_no_caller_feels_a_bad_target(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, behaviour: Behaviour, body: int
) -> None:
    """Slow, silent, resetting, failing: every answer is there, whole, long before the target's."""
    async with Misbehaving(behaviour) as target:
        await mirrored(xds, servers[0], target.port)
        found = [await ask(client, envoy, data=b"x" * body) for _ in range(3)]
        assert {status for status, _ in found} == {200}
        assert max(took_s for _, took_s in found) < 4
        assert (target.connections > 0) == (body <= LARGEST_BODY)
    assert servers[0].executions["/"] == 3


async def test_many_at_once_at_a_silent_target(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """More than the target's limits: the surplus of copies is dropped, no request is."""
    async with Misbehaving(silent) as target:
        await mirrored(xds, servers[0], target.port)
        found = await asyncio.gather(*(ask(client, envoy, data=b"x" * 1000) for _ in range(400)))
        assert {status for status, _ in found} == {200}
        assert 0 < target.connections <= MAX_CONNECTIONS


@pytest.mark.parametrize("target", ["none", "refuses", "unknown"])
async def test_a_target_that_is_away(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, target: str
) -> None:
    """Without a replica, refusing, or never heard of."""
    if target != "unknown":
        ports = () if target == "none" else (free_port(),)
        await xds.acknowledged(xds.put(a_plan("copy", *ports, shadows=("all",))))
    mirroring = Mirroring(targets=("copy",), percent=100)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, mirroring=mirroring)))
    found = await asyncio.gather(*(ask(client, envoy, data=b"x" * 100_000) for _ in range(100)))

    assert {status for status, _ in found} == {200}


async def test_the_share_and_what_a_copy_carries(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """The same request, without what opens the service, and with whose it is. To a hundredth of a percent."""
    source, target, _ = servers
    await mirrored(xds, source, target.port, percent=25)
    for n in range(400):
        assert (await ask(client, envoy, f"/api/predict/ocr/v1?n={n}", headers={"x-mine": "yes"}))[0] == 200
    await until(lambda: target.active == 0 and target.executions.total() > 50, "copies have come")
    names = {name.lower(): value for name, value in target.headers.items()}

    assert 60 < target.executions["/v1"] < 145  # 5 standard deviations
    assert "authorization" not in names
    assert names["x-easel-mirrored"] == "ocr"
    assert names["x-mine"] == "yes"
    assert not names["host"].endswith("-shadow")
    assert "authorization" in {name.lower() for name in source.headers}
    assert "x-easel-mirrored" not in {name.lower() for name in source.headers}


async def test_bodies_are_copied_whole_or_not_at_all(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Up to the limit; not above it, nor where nobody knows how long they get. The request itself passes as ever."""
    source, target, _ = servers
    await mirrored(xds, source, target.port)
    bodies: list[int] = []
    target.seen_body = bodies.append

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    for data in (b"x" * LARGEST_BODY, b"x" * (LARGEST_BODY + 1), pieces(), b"", b"x"):
        assert (await ask(client, envoy, data=data))[0] == 200
    assert (await ask(client, envoy, method="GET"))[0] == 200
    await until(lambda: len(bodies) == 4, "the copies have come")

    assert sorted(bodies) == [0, 0, 1, LARGEST_BODY]
    assert source.executions.total() == 6


async def test_conversations_are_not_copied(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """A WebSocket works as ever; its target hears nothing of it."""
    source, target, _ = servers
    await mirrored(xds, source, target.port)
    async with client.ws_connect(envoy.url + "/api/predict/ocr/ws", headers=AUTH) as socket:
        await socket.send_str("one")
        assert await socket.receive_str() == "b0:one"
    await ask(client, envoy, "/api/predict/ocr/after")
    await until(lambda: target.executions["/after"] == 1, "a later copy has come")

    assert target.executions.total() == 1


async def test_the_candidate_as_a_target(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Its replicas get copies, the others none."""
    stable, candidate, _ = servers
    plan = a_plan(
        "ocr", stable.port, candidates=(candidate.port,), split=Split(weight_permille=0), shadows=("candidate",),
        mirroring=Mirroring(targets=(CANDIDATE,), percent=100),
    )  # fmt: skip
    await xds.acknowledged(xds.put(plan))
    for _ in range(20):
        await ask(client, envoy)
    await until(lambda: candidate.executions["/"] == 20, "all copies have come")

    assert stable.executions["/"] == 20


@pytest.fixture
async def collector() -> AsyncIterator[Backend]:
    made = Backend("collector")
    await made.start()
    yield made
    await made.stop()


async def test_a_comparison_gets_copies_and_reaches_each_side(
    xds: Rig, servers: list[Backend], client: Client, collector: Backend
) -> None:
    """Copies go to the collector alone; with the secret it reaches stable and candidate without a token, and what it
    sends there is not copied again."""
    envoy = await xds.envoy(shadow_addr=f"127.0.0.1:{collector.port}")
    stable, candidate, _ = servers
    plan = a_plan(
        "ocr", stable.port, candidates=(candidate.port,), split=Split(weight_permille=0),
        shadows=("candidate", "stable"), mirroring=Mirroring(targets=(CANDIDATE,), percent=100, compare=Comparison()),
    )  # fmt: skip
    await xds.acknowledged(xds.put(plan))
    await ask(client, envoy, "/api/predict/ocr/first?a=1")
    await until(lambda: collector.executions["/first"] == 1, "the copy has come")
    names = {name.lower(): value for name, value in collector.headers.items()}
    assert (names["x-easel-mirror"], names["x-easel-probe"]) == ("ocr", PROBE_SECRET)
    assert "authorization" not in names

    async def replay(arm: str, secret: str = PROBE_SECRET) -> tuple[int, str]:
        headers = {"x-easel-probe": secret, "x-easel-arm": arm}
        async with client.post(envoy.url + "/api/predict/ocr/again", headers=headers) as answer:
            return answer.status, (await answer.text())[:20]

    assert "b0" in (await replay("stable"))[1]
    assert "b1" in (await replay("candidate"))[1]
    for backend in (stable, candidate):
        seen = {name.lower() for name in backend.headers}
        assert not seen & {"x-easel-probe", "x-easel-arm"}
        assert backend.headers.get("x-easel-mirrored") == "ocr"
    assert (await replay("stable", "guess"))[0] == 401
    assert (await replay("neither"))[0] == 401
    assert collector.executions.total() == 1

    await candidate.stop()
    assert (await replay("candidate"))[0] == 503  # stable does not answer for it


async def test_copies_are_counted_at_the_replica(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """A drain waits for them as for any request."""
    source, target, _ = servers
    await mirrored(xds, source, target.port)
    await ask(client, envoy, "/api/predict/ocr/quick")
    source.release()
    await ask(client, envoy, "/api/predict/ocr/wait")
    await until(lambda: target.active == 1, "the copy is in flight")
    clusters, address = every_cluster("copy"), ("127.0.0.1", target.port)
    with xds.loads.watching(clusters):
        busy = await asyncio.wait_for(xds.loads.next_in_flight(envoy.node_id, clusters, address), 10)
        target.release()
        await until(lambda: target.active == 0, "answered")
        idle = await asyncio.wait_for(xds.loads.next_in_flight(envoy.node_id, clusters, address), 10)

    assert (busy, idle) == (1, 0)
