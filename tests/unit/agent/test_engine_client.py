"""Streams of an engine that is gone end one after the other; none of them takes another's connection along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from easel_agent.docker.engine import Engine, EngineAway


class Played:
    """Streams by number; each sends a line when it is told to, or is cut off."""

    def __init__(self) -> None:
        self.orders: dict[str, asyncio.Queue[str]] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """`/stream/N`, and the version that a client asks for first."""
        name = request.path.rpartition("/")[2]
        if name == "version":
            return web.json_response({"ApiVersion": "1.41"})
        response = web.StreamResponse()
        await response.prepare(request)
        orders = self.orders[name] = asyncio.Queue()
        await response.write(b'{"begun": true}\n')
        while await orders.get() == "line":
            await response.write(b'{"line": true}\n')
        assert request.transport is not None
        request.transport.abort()
        return response


@pytest.fixture
async def played(short_path: Path) -> AsyncIterator[Played]:
    """Listens at engine.sock."""
    found = Played()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(short_path / "engine.sock")).start()
    yield found
    await runner.cleanup()


async def test_one_failure_leaves_the_other_streams_alone(short_path: Path, played: Played) -> None:
    """Who reads on gets what comes, and hears of the end of its own stream; a new one begins meanwhile."""
    engine = Engine(f"unix://{short_path}/engine.sock")
    async with (
        asyncio.timeout(20),
        aclosing(engine.lines("GET", "stream/1")) as first,
        aclosing(engine.lines("GET", "stream/2")) as second,
        aclosing(engine.lines("GET", "stream/3")) as third,
    ):
        assert await anext(first) == await anext(second) == {"begun": True}
        reading = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)  # so that it waits when the other fails
        played.orders["1"].put_nowait("end")
        with pytest.raises(EngineAway):
            await anext(first)
        assert await anext(third) == {"begun": True}

        played.orders["2"].put_nowait("line")
        assert await reading == {"line": True}
        played.orders["2"].put_nowait("end")
        with pytest.raises(EngineAway):
            await anext(second)
        played.orders["3"].put_nowait("line")
        assert await anext(third) == {"line": True}
    await engine.end()
