"""kill -9 of each process in turn under steady load; of the supervisor; and nothing left after `down`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

from easel_kit.testing import eventually
from easel_standalone import api
from easel_standalone.control_socket import ProcessStatus
from tests.e2e.standalone.conftest import Platform

CLIENTS = 4
PROCESSES = ("nats", "postgres", "control", "scheduler", "autoscaler", "router", "monitor")
"""Those whose end no request may feel. Envoy's connections and the agent's replicas end with them."""


class Load:
    """Steady requests; counts every answer."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.answers: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Requests flow while inside; some have been answered on entry."""
        async with aiohttp.ClientSession(headers={"Authorization": self._platform.token}) as session:
            clients = [asyncio.create_task(self._client(session)) for _ in range(CLIENTS)]
            try:
                await eventually(lambda: self.answers["200"] > 20)
                self.answers.clear()
                yield self
            finally:
                for client in clients:
                    client.cancel()
                await asyncio.gather(*clients, return_exceptions=True)

    async def more(self, count: int = 100) -> None:
        """Returns when so many more requests were answered well."""
        wanted = self.answers["200"] + count
        await eventually(lambda: self.answers["200"] >= wanted)

    def failed(self) -> dict[str, int]:
        """Everything that is not a 200."""
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.get(self._platform.url) as response:
                    await response.read()
                    self.answers[str(response.status)] += 1
            except aiohttp.ClientError as error:
                self.answers[type(error).__name__] += 1
            await asyncio.sleep(0.005)


async def _process(platform: Platform, name: str) -> ProcessStatus:
    status = await asyncio.to_thread(api.status, platform.home)
    return next(p for p in status.processes if p.name == name)


async def _kill(platform: Platform, name: str) -> ProcessStatus:
    """kill -9, and back to ready with another pid."""
    before = await _process(platform, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    async def back() -> ProcessStatus | None:
        now = await _process(platform, name)
        return now if now.pid not in (None, before.pid) and now.state == "ready" else None

    after: ProcessStatus = await eventually(back)
    assert after.restarts == before.restarts + 1
    return after


@pytest.mark.parametrize("name", PROCESSES)
async def test_requests_do_not_feel_a_killed_process(platform: Platform, name: str) -> None:
    """Envoy and the replicas go on; the process comes back to ready."""
    async with Load(platform).running() as load:
        await _kill(platform, name)
        await load.more()

        assert load.failed() == {}


async def test_killed_envoy_is_back_at_once(platform: Platform) -> None:
    """Only requests on its connections fail, and those that come before it listens again."""
    async with Load(platform).running() as load:
        await _kill(platform, "envoy")
        await load.more()

        assert set(load.failed()) <= {"ClientConnectorError", "ServerDisconnectedError", "ClientOSError"}


async def test_replicas_die_with_the_agent_and_are_replaced(platform: Platform) -> None:
    """The service runs again with other processes; clients were told 503, never anything wrong."""
    before = {w["pid"] for w in platform.easel("w", "pids")}
    async with Load(platform).running() as load:
        await _kill(platform, "agent")
        await load.more()

        assert set(load.failed()) <= {"503"}
    after = await eventually(lambda: _ready_pids(platform))
    assert len(after) == 2
    assert not before & after
    assert not [pid for pid in before if pid and psutil.pid_exists(pid)]


async def test_killed_replica_is_not_felt_and_replaced(platform: Platform) -> None:
    """One of two: a request in flight on it is retried on the other, since GET is safe."""
    victim = next(iter(await eventually(lambda: _ready_pids(platform))))
    async with Load(platform).running() as load:
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len(_ready_pids(platform)) == 2 and victim not in _ready_pids(platform))
        await load.more()

        assert load.failed() == {}


async def test_killed_supervisor_leaves_nothing_and_the_next_up_serves(platform: Platform) -> None:
    """Every process and replica ends with it; the same services answer again without a command."""
    status = await asyncio.to_thread(api.status, platform.home)
    family = psutil.Process(status.pid).children(recursive=True)
    assert len(family) > len(status.processes)
    os.kill(status.pid, signal.SIGKILL)

    await eventually(lambda: not [p for p in family if _alive(p)])
    await asyncio.to_thread(platform.up)

    async with Load(platform).running() as load:
        await load.more(20)


async def test_down_leaves_nothing_and_up_serves_again(platform: Platform) -> None:
    """A clean stop ends the replicas too; what was deployed comes back."""
    status = await asyncio.to_thread(api.status, platform.home)
    family = psutil.Process(status.pid).children(recursive=True)

    assert await asyncio.to_thread(api.down, platform.home)

    assert not [p for p in family if _alive(p)]
    assert api.status(platform.home).phase == "stopped"
    await asyncio.to_thread(platform.up)
    async with Load(platform).running() as load:
        await load.more(20)


def _ready_pids(platform: Platform) -> set[int]:
    return {w["pid"] for w in platform.easel("w", "pids") if w["ready"]}


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
