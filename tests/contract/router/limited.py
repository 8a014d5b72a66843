"""Requests of services and groups that have limits, and what became of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp

from easel_router.testing import Envoy, until

Client = aiohttp.ClientSession
AUTH = {"authorization": "tok"}
Answer = tuple[int, dict[str, Any], dict[str, str]]


async def ask(
    client: Client, envoy: Envoy, path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any
) -> Answer:
    async with client.request(method, envoy.url + path, headers=AUTH | (headers or {}), **more) as answer:
        text = await answer.text()
        body = json.loads(text) if text.startswith("{") else {"text": text}
        return answer.status, body, {name.lower(): value for name, value in answer.headers.items()}


async def codes(client: Client, envoy: Envoy, path: str, count: int, **more: Any) -> Counter[int]:
    return Counter(status for status, _, _ in await asyncio.gather(
        *(ask(client, envoy, path, **more) for _ in range(count))
    ))  # fmt: skip


def waiting(client: Client, envoy: Envoy, service: str, count: int) -> list[asyncio.Task[Answer]]:
    """Requests that a model works on until it is released."""
    return [asyncio.create_task(ask(client, envoy, f"/api/predict/{service}/wait")) for _ in range(count)]


async def refused_of(running: list[asyncio.Task[Answer]], count: int) -> list[Answer]:
    """Waits until so many of them are answered."""
    await until(lambda: sum(task.done() for task in running) >= count, f"{count} refused")
    return [task.result() for task in running if task.done()]


async def counted(envoy: Envoy, what: str) -> bool:
    return what in await envoy.admin("/stats?filter=easel.local_reply")
