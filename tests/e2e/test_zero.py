"""Zero and back, and crashes of what serves: who waits is answered; nothing runs twice that was not declared safe."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from tests.e2e.load import steady_load
from tests.e2e.platform import Executions, Platform, deploy, remove, spec

pytestmark = pytest.mark.usefixtures("runtime")

NAME = "sleeper"
WAIT_S = 90
ZERO = {
    "min": 0,
    "max": 3,
    "strategies": {"concurrency": 1000},
    "behavior": {"onZero": {"scaleDownGracePeriodSeconds": 3}, "scaleDown": {"stabilizationWindowSeconds": 3}},
}


@pytest.fixture
def executions(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


@pytest.fixture
async def service(easel: Client, executions: Executions) -> AsyncIterator[Any]:
    """A service at zero."""
    document = executions.of(spec(NAME, autoscaler=ZERO))
    document["metadata"]["instance"] = 0
    found = await deploy(easel, document)
    assert (found.status, found.reason) == ("Running", "ScaledToZero")
    yield found
    await remove(easel, NAME)


async def ask_many(service: Any, count: int, method: str = "POST") -> list[tuple[int, dict[str, Any], str]]:
    """So many requests at once, none repeated: (status, body, replica position header)."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    headers = {"Authorization": service.token}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def one(n: int) -> tuple[int, dict[str, Any], str]:
            data = b"x" if method == "POST" else None
            async with session.request(method, f"{service.endpoint}?id=m{n}", data=data) as answer:
                text = await answer.text()
                body = json.loads(text) if text.startswith("{") else {"text": text}
                return answer.status, body, answer.headers.get("easel-queue-position", "")

        return await asyncio.gather(*(one(n) for n in range(count)))


async def alive(easel: Client) -> list[Any]:
    return [r for r in await easel.replicas.list(NAME) if r.status not in ("stopped", "failed", "lost")]


async def test_zero_to_one_to_zero(easel: Client, service: Any, executions: Executions) -> None:
    """The first request is held, wakes the service and is answered; idle again, the replica goes."""
    assert await alive(easel) == []
    ((status, body, position),) = await ask_many(service, 1)
    assert (status, position) == (200, "1"), body
    assert executions.counts() == {"m0": 1}
    history = await easel.scaling.history(NAME)
    assert history[0].reason == "Activated"

    async def none_left() -> bool:
        return await alive(easel) == [] and (await easel.services.get(NAME)).reason == "ScaledToZero"

    await eventually(none_left, WAIT_S)
    route = await easel.routes.get(NAME)
    assert route.holding
    assert route.cold_starts == 1
    assert route.cold_start_s["start"] > 0
    ((status, body, _),) = await ask_many(service, 1)
    assert status == 200, body


@pytest.mark.parametrize("count", [200, 2000])
async def test_many_wait(easel: Client, service: Any, executions: Executions, count: int) -> None:
    """All of them are answered, each executed once."""
    answers = await ask_many(service, count)

    assert {status for status, _, _ in answers} == {200}, [a for a in answers if a[0] != 200][:3]
    assert set(executions.counts().values()) == {1}
    assert len(executions.counts()) == count


async def test_held_requests_outlive_the_control_plane(
    platform: Platform, easel: Client, service: Any, executions: Executions
) -> None:
    """Router, autoscaler, scheduler, NATS and PostgreSQL are killed in turn while requests wait for a slow start."""
    await easel.wait(await easel.services.update(NAME, slow_start(await config(easel), 4.0)), timeout_s=WAIT_S)
    for part in ("router", "autoscaler", "scheduler", "nats", "postgres"):

        async def none_left() -> bool:
            return await alive(easel) == []

        await eventually(none_left, WAIT_S)
        waiting = asyncio.create_task(ask_many(service, 20))
        await platform.kill(part)
        answers = await waiting
        assert {status for status, _, _ in answers} == {200}, (part, [a for a in answers if a[0] != 200][:3])
        assert set(executions.counts().values()) == {1}, part
        executions.forget()


async def config(easel: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await easel.services.get(NAME)).service_config)
    return found


def slow_start(document: dict[str, Any], start_s: float) -> dict[str, Any]:
    """What an update sends to make starts slow."""
    container = document["containers"][0]
    return {"containers": [container | {"env": [*container["env"], {"name": "START_S", "value": f"{start_s:g}"}]}]}


async def test_the_last_replicas_crash(easel: Client, service: Any, executions: Executions) -> None:
    """kill -9 of the only replica under load: GETs lose nothing; POSTs at most those in flight; nothing runs twice."""
    clients = 4
    await ask_many(service, 1)
    for method in ("GET", "POST"):
        async with steady_load(service.endpoint, service.token, method=method, clients=clients, query="s=0.05") as load:
            await load.answered_more(20)
            (only,) = [r for r in await alive(easel) if r.ready]
            os.kill(only.pid, signal.SIGKILL)
            await load.answered_more(60, 60)
        # A caller whose POST broke sends the next at once: it may still connect to the listener of a process that is
        # being torn down, and is in flight on what dies, too. Nobody is told anything else.
        allowed = 0 if method == "GET" else 2 * clients
        assert len(load.failures) <= allowed, load.failed()
        assert all("ReplicaGone" in what for what in load.failed())
        if method == "POST":
            assert {m: n for m, n in executions.counts().items() if n > 1} == {}
        executions.forget()


@pytest.mark.parametrize("trouble", ["stopped", "reset", "503"])
async def test_one_of_two_misbehaves(easel: Client, executions: Executions, trouble: str) -> None:
    """Stopped by SIGSTOP, resetting every connection, or answering 503: GETs lose nothing, POSTs run at most once."""
    name = f"two_{trouble}"
    document = executions.of(spec(name, instance=2))
    check = {"http_get": {"path": "/mode?m=ok"}, "period_seconds": 1, "timeout_seconds": 1, "failure_threshold": 1}
    if trouble == "stopped":
        document["containers"][0]["liveness_check"] = check
    service = await deploy(easel, document)
    try:
        victim = next(r for r in await easel.replicas.list(name) if r.ready)
        async with (
            steady_load(service.endpoint, service.token, method="GET", clients=4) as gets,
            steady_load(service.endpoint, service.token, method="POST", clients=2, query="s=0&post=1") as posts,
        ):
            await gets.answered_more(20)
            if trouble == "stopped":
                os.kill(victim.pid, signal.SIGSTOP)
            else:
                async with aiohttp.ClientSession() as session:
                    await session.get(f"http://{victim.address}/mode?m={trouble}")
            await gets.answered_more(200, 60)
            await posts.answered_more(20, 60)
    finally:
        await remove(easel, name)

    assert gets.failed() == []
    assert {m: n for m, n in executions.counts().items() if n > 1 and m.startswith("POST")} == {}
