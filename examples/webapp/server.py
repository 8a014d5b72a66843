"""A page that reads the text in an image: the browser sends the image here, and this asks the service `ocr`.

The page's own links are relative, so it works at the root of a host name and below /api/predict/ocr_app alike. The
token of `ocr` stays here: no browser sees it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

OCR_URL = os.environ["OCR_URL"]
OCR_TOKEN = os.environ["OCR_TOKEN"]
TIMEOUT_S = 60.0
"""A service that has no replica needs a while for its first answer."""
PAGE = (Path(__file__).parent / "page.html").read_text()


class Readings:
    """How many images were read, told to every open page."""

    def __init__(self) -> None:
        self.count = 0
        self._pages: set[asyncio.Queue[int]] = set()

    def one_more(self) -> None:
        """Tells all pages."""
        self.count += 1
        for page in self._pages:
            page.put_nowait(self.count)

    async def follow(self) -> AsyncIterator[int]:
        """The count now, and after each reading."""
        page: asyncio.Queue[int] = asyncio.Queue()
        self._pages.add(page)
        try:
            yield self.count
            while True:
                yield await page.get()
        finally:
            self._pages.discard(page)


async def page(request: Request) -> Response:
    """The page."""
    return HTMLResponse(PAGE)


async def read(request: Request) -> Response:
    """POST an image: what `ocr` answers, or why it does not."""
    try:
        answer = await request.app.state.ocr.post(OCR_URL, content=await request.body())
    except httpx.HTTPError as error:
        return JSONResponse({"error": {"code": "OCR_AWAY", "message": f"ocr does not answer: {error!r}"}}, 502)
    if answer.is_success:
        request.app.state.readings.one_more()
    return Response(answer.content, answer.status_code, media_type="application/json")


async def readings(socket: WebSocket) -> None:
    """A WebSocket: the number of readings, whenever it changes."""
    await socket.accept()
    try:
        async for count in socket.app.state.readings.follow():
            await socket.send_json({"readings": count})
    except WebSocketDisconnect:
        return


async def health(request: Request) -> Response:
    """200 as soon as the port is open."""
    return JSONResponse({"status": "ok"})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One client for all requests."""
    app.state.readings = Readings()
    headers = {"Authorization": OCR_TOKEN}
    async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, trust_env=False) as app.state.ocr:
        yield


app = Starlette(
    routes=[
        Route("/", page),
        Route("/read", read, methods=["POST"]),
        WebSocketRoute("/readings", readings),
        Route("/health", health),
    ],
    lifespan=lifespan,
)

if __name__ == "__main__":
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=25)
