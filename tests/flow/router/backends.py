"""Model servers for tests: what they were asked, how often, and how to make them misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web


class Backend:
    """One model server on a port of 127.0.0.1."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, 0
        self.executions: Counter[str] = Counter()
        """Times each `x-id` (or path) was begun."""
        self.active = 0
        self.headers: dict[str, str] = {}
        self.seen_body: Callable[[int], None] = lambda size: None
        """Called with the size of each body that has come whole."""
        self._open = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/sse", self._events)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends it with whatever it was doing, like a kill -9: connections are reset."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        for connection in list(runner.server.connections) if runner.server else []:
            if connection.transport is not None:
                connection.transport.abort()
        with contextlib.suppress(Exception):
            await runner.cleanup()

    def release(self) -> None:
        """Lets every request at /wait answer."""
        self._open.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.executions[request.headers.get("x-id", request.path)] += 1
        self.headers = dict(request.headers)
        self.active += 1
        try:
            body = await request.read()
            self.seen_body(len(body))
            if request.path == "/wait":
                await self._open.wait()
            if request.path == "/sleep":
                await asyncio.sleep(float(request.query["s"]))
            if request.path == "/status":
                return web.Response(status=int(request.query["code"]), text="as asked")
            seen = {"name": self.name, "path": request.path_qs, "method": request.method, "body_bytes": len(body)}
            return web.json_response(seen)
        finally:
            self.active -= 1

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Five events, `gap` seconds apart, the first at once."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for n in range(5):
            await response.write(f"data: {n}\n\n".encode())
            await asyncio.sleep(float(request.query["gap"]))
        return response

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await asyncio.sleep(float(request.query.get("gap", "0")))
                await socket.send_str(f"{self.name}:{message.data}")
        return socket


def runs(backends: Iterable[Backend]) -> Counter[str]:
    """Executions of all of them."""
    return sum((backend.executions for backend in backends), Counter[str]())


@asynccontextmanager
async def backends(count: int) -> AsyncIterator[list[Backend]]:
    """So many of them."""
    made = [Backend(f"b{n}") for n in range(count)]
    try:
        for backend in made:
            await backend.start()
        yield made
    finally:
        for backend in made:
            backend.release()
            await backend.stop()
