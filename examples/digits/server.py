"""Reads a handwritten digit: POST {"pixels": [64 numbers]}, get the digit and how sure the model is, as JSON.

The model is trained at start on scikit-learn's own data set (1,797 digits of 8 x 8 pixels, no download), in a second.
DIGITS_MODEL chooses it: `logistic` (the default) or `tree`, which is worse; so releases, canaries and mirrors have
something real to tell apart. DIGITS_MOST_INK bounds the sum of the pixels; more is an error of the server, a 500.
"""

from __future__ import annotations

import os
from typing import Any

import uvicorn
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MODEL = os.environ.get("DIGITS_MODEL", "logistic")
PIXELS = 64
MOST_INK = float(os.environ.get("DIGITS_MOST_INK", str(16 * PIXELS)))


def train(name: str) -> Any:
    """A fitted model; the same each time."""
    data, labels = load_digits(return_X_y=True)
    models = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
        "tree": DecisionTreeClassifier(random_state=0, max_depth=9),
    }
    return models[name].fit(data, labels)


model = train(MODEL)


def read(pixels: list[float]) -> dict[str, Any]:
    """The digit. Raises ValueError for more ink than the model was made for."""
    if sum(pixels) > MOST_INK:
        raise ValueError(f"{sum(pixels):g} is more ink than {MOST_INK:g}")
    chances = model.predict_proba([pixels])[0]
    best = int(chances.argmax())
    return {"digit": best, "score": round(float(chances[best]), 4), "model": {"name": MODEL}}


async def predict(request: Request) -> JSONResponse:
    """POST the pixels, row by row."""
    try:
        pixels = [float(value) for value in (await request.json())["pixels"]]
    except (ValueError, KeyError, TypeError):
        return _failed(400, "BAD_INPUT", 'send {"pixels": [64 numbers]}')
    if len(pixels) != PIXELS:
        return _failed(400, "BAD_INPUT", f"{len(pixels)} pixels, where {PIXELS} are needed")
    try:
        return JSONResponse(await run_in_threadpool(read, pixels))
    except ValueError as error:
        return _failed(500, "MODEL_FAILED", str(error))


async def health(request: Request) -> JSONResponse:
    """200 once the model is trained: the port does not open before."""
    return JSONResponse({"status": "ok"})


def _failed(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


app = Starlette(routes=[Route("/", predict, methods=["POST"]), Route("/health", health, methods=["GET"])])

if __name__ == "__main__":
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=25)
