"""Says what kind of file some bytes are: POST the bytes, get label, MIME type and description as JSON.

The model (Google's Magika) ships inside the `magika` wheel: nothing is downloaded at start. It looks at the
content alone, so a Python script named `photo.jpg` is still a Python script.
"""

from __future__ import annotations

import os
import time
from typing import Any

import uvicorn
from magika import Magika
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MAX_BODY_MIB = int(os.environ.get("FILETYPE_MAX_BODY_MIB", "16"))

model = Magika()


class BodyTooLarge(Exception):
    """The body is larger than MAX_BODY_MIB."""


def identify(body: bytes) -> dict[str, Any]:
    """What the bytes are, and how sure the model is (0 to 1)."""
    started = time.perf_counter()
    found = model.identify_bytes(body)
    elapsed_ms = (time.perf_counter() - started) * 1000
    return {
        "label": str(found.output.label),
        "mime_type": found.output.mime_type,
        "description": found.output.description,
        "group": found.output.group,
        "is_text": found.output.is_text,
        "score": round(float(found.score), 4),
        "ms": round(elapsed_ms, 2),
    }


async def body_of(request: Request) -> bytes:
    """The request's body. Raises BodyTooLarge as soon as it is known to be, not after reading it all."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_MIB * 1024 * 1024:
            raise BodyTooLarge
    return bytes(body)


def refusal(status: int, code: str, message: str) -> JSONResponse:
    """An error as JSON: a constant for programs, a sentence for people."""
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


async def predict(request: Request) -> JSONResponse:
    """POST the bytes of a file."""
    try:
        body = await body_of(request)
    except BodyTooLarge:
        return refusal(413, "BODY_TOO_LARGE", f"the body is larger than {MAX_BODY_MIB} MiB")
    if not body:
        return refusal(400, "EMPTY_BODY", "the body is empty: send the bytes of a file")
    return JSONResponse(await run_in_threadpool(identify, body))


async def health(request: Request) -> JSONResponse:
    """200 once the model is loaded: the port does not open before."""
    return JSONResponse({"status": "ok"})


app = Starlette(routes=[Route("/", predict, methods=["POST"]), Route("/health", health, methods=["GET"])])

if __name__ == "__main__":
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))
    identify(b"warm up: the first computation is slower than the others\n" * 20)
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=25)
