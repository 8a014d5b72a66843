"""Reads the text in an image: POST the bytes of an image, get its lines with their boxes as JSON.

The model (PP-OCRv6, by RapidOCR) ships inside the `rapidocr` wheel: nothing is downloaded at start.

One request is computed at a time, on one thread. More throughput comes from more replicas, which is what the
platform scales; two computations that share one core would only make both of them late.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import cv2
import numpy as np
import uvicorn
from PIL import Image, ImageOps, UnidentifiedImageError
from rapidocr import RapidOCR
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

THREADS = int(os.environ.get("OCR_THREADS", "1"))
MAX_BODY_MIB = int(os.environ.get("OCR_MAX_BODY_MIB", "20"))
MAX_MEGAPIXELS = int(os.environ.get("OCR_MAX_MEGAPIXELS", "25"))
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


class BadImage(Exception):
    """The body is not an image that this service reads; the text is for the caller."""


class BodyTooLarge(Exception):
    """The body is larger than MAX_BODY_MIB."""


def load_model() -> RapidOCR:
    """The model, warmed up: RapidOCR opens its networks on first use, and no caller should pay for that."""
    cv2.setNumThreads(THREADS)
    settings = {
        "Global.log_level": "warning",
        "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        # Shrink large images and leave small ones as they are: enlarging them (the default) costs three
        # times the time and twice the memory. Lines one by one: batches are padded to their longest line.
        "Det.limit_type": "max",
        "Det.limit_side_len": 1280,
        "Rec.rec_batch_num": 1,
    }
    model = RapidOCR(params=settings)
    blank_page = np.full((64, 256, 3), 255, dtype=np.uint8)
    cv2.putText(blank_page, "warm up", (10, 44), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
    model(blank_page)
    return model


def decode(body: bytes) -> np.ndarray:
    """The image as the model wants it: upright, three channels, blue first. Raises BadImage."""
    if not body:
        raise BadImage("the body is empty: send the bytes of an image")
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        width, height = image.size
        if width * height > MAX_MEGAPIXELS * 1_000_000:
            raise BadImage(f"the image has {width} x {height} pixels; the limit is {MAX_MEGAPIXELS} megapixels")
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:  # what is transparent is read as white
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        rgb = np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError as error:
        raise BadImage(f"the body is not an image; send the bytes of one of {', '.join(FORMATS)}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(f"the image cannot be read: {error}") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def read_text(model: RapidOCR, body: bytes) -> dict[str, Any]:
    """The lines found, from top to bottom, each with its four corners (clockwise from top left) and its score.

    Raises BadImage.
    """
    started = time.perf_counter()
    found = model(decode(body))
    rows = zip(found.txts, found.boxes, found.scores, strict=True) if found.txts else ()
    lines = [
        {"text": text, "box": np.rint(box).astype(int).tolist(), "score": round(float(score), 4)}
        for text, box, score in rows
    ]
    elapsed_ms = (time.perf_counter() - started) * 1000
    return {"text": "\n".join(line["text"] for line in lines), "lines": lines, "ms": round(elapsed_ms, 1)}


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


async def predict(request: Request) -> Response:
    """POST an image."""
    state = request.app.state
    try:
        body = await body_of(request)
        async with state.turn:
            if await request.is_disconnected():  # the caller gave up while waiting: do not work for nobody
                return Response(status_code=499)
            answer = await asyncio.get_running_loop().run_in_executor(state.worker, read_text, state.model, body)
    except BodyTooLarge:
        return refusal(413, "BODY_TOO_LARGE", f"the body is larger than {MAX_BODY_MIB} MiB")
    except BadImage as error:
        return refusal(400, "NOT_AN_IMAGE", str(error))
    return JSONResponse(answer)


async def health(request: Request) -> Response:
    """200 once the model is loaded: the port does not open before."""
    return JSONResponse({"status": "ok"})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Loads the model before the port opens."""
    started = time.perf_counter()
    app.state.model = load_model()
    app.state.turn = asyncio.Lock()  # fair: requests are computed in the order of their arrival
    print(f"model ready in {time.perf_counter() - started:.2f} s, {THREADS} thread(s)", flush=True)
    with ThreadPoolExecutor(1, "ocr") as app.state.worker:  # beside the event loop, so that /health always answers
        yield


app = Starlette(
    routes=[Route("/", predict, methods=["POST"]), Route("/health", health, methods=["GET"])],
    lifespan=lifespan,
)

if __name__ == "__main__":
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=25)
