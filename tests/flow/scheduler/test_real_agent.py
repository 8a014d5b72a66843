"""The scheduler and the real agent: a program runs, is killed, survives the scheduler, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from easel_contracts.spec import Lifecycle, Resources, RevisionSpec
from easel_kit.testing import eventually
from easel_proto.v1 import replicas_pb2
from tests.flow.scheduler.platform import AUTH, Platform, logs_request, platform
from tests.unit.scheduler.build import service

SERVER = "python -u -m http.server $PORT --bind 127.0.0.1"


def web_server(number: int = 1, command: str = SERVER) -> RevisionSpec:
    return RevisionSpec(number=number, resources=Resources(cpu=0.1, memory_mib=128), port=8000, command=command,
                        lifecycle=Lifecycle(termination_grace_s=5.0))  # fmt: skip


@asynccontextmanager
async def running_agent(world: Platform, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**os.environ, **world.environment_of("agent")}
    with (path / "agent.log").open("ab") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "easel_agent", env=env, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


async def test_a_real_program_lives_and_ends(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Ready with a port that answers; killed → restarted in place; the scheduler's restart touches nothing; drained."""
    address = f"unix:{short_path}/agent.sock"
    async with (
        platform(short_path, nats_url, postgres_dsn, [address], wait_for_nodes=False) as world,
        running_agent(world, short_path),
    ):
        await world.tell("service", "created", "ocr", service(1, web_server()))
        (ready,) = await world.until(1, "ready")
        assert ready.pid is not None
        assert await answers(ready.endpoints[0].port)
        assert {"schedule", "fetch", "start", "probe"} <= set(ready.phase_s)

        os.kill(ready.pid, signal.SIGKILL)
        again = await eventually(lambda: _restarted(world, 1))
        assert again.id == ready.id
        await world.kill()
        await world.start()
        async with world.api() as (replicas, _):
            chunks = [c.data async for c in replicas.Logs(logs_request(), metadata=AUTH)]
        assert any(b"Serving HTTP" in data for data in chunks)
        (adopted,) = await world.replicas("ready")
        assert (adopted.pid, adopted.restarts) == (again.pid, 1)

        await world.tell("service", "stopped", "ocr", service(1, web_server(), wanted="stopped"))
        await world.until(1, "draining")
        await world.drained(adopted.id)
        await world.until(1, "stopped")
        assert not psutil.pid_exists(adopted.pid or 0)


async def test_a_real_program_is_started_anew_in_its_place(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Not while a request is left; then another process at the same replica, on the same port, back in traffic."""
    address = f"unix:{short_path}/agent.sock"
    async with (
        platform(short_path, nats_url, postgres_dsn, [address], wait_for_nodes=False) as world,
        running_agent(world, short_path),
    ):
        await world.tell("service", "created", "ocr", service(1, web_server()))
        (before,) = await world.until(1, "ready")
        await world.route(before.id)
        async with world.api() as (replicas, _):
            asked = replicas_pb2.RestartReplicasRequest(service="ocr", replicas=[before.id], soft=True)
            await replicas.Restart(asked, metadata=AUTH)
        await eventually(lambda: _out_of_traffic(world, before.id))
        assert psutil.pid_exists(before.pid or 0)
        await world.drained(before.id)
        after = await eventually(lambda: _started_anew(world, before.pid or 0))
        assert (after.id, after.out_of_traffic, after.restart_done) == (before.id, "", 1)
        assert await answers(after.endpoints[0].port)
        assert not psutil.pid_exists(before.pid or 0)


async def test_a_command_that_does_not_exist_fails_with_the_reason(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """The agent's cause and sentence reach the row, and a good revision replaces it at once."""
    address = f"unix:{short_path}/agent.sock"
    async with (
        platform(short_path, nats_url, postgres_dsn, [address], wait_for_nodes=False) as world,
        running_agent(world, short_path),
    ):
        await world.tell("service", "created", "ocr", service(1, web_server(1, "no-such-program")))
        failed = await eventually(lambda: _first_failed(world))
        assert failed.cause == "CommandFailed"
        assert "no-such-program" in failed.message
        await world.tell("service", "updated", "ocr", service(1, web_server(2), generation=2), 2)
        (ready,) = await world.until(1, "ready")
        assert ready.spec.number == 2


async def _restarted(world: Platform, restarts: int):  # type: ignore[no-untyped-def]
    return next((r for r in await world.replicas("ready") if r.restarts == restarts), None)


async def _out_of_traffic(world: Platform, name: str) -> bool:
    found = await world.store.replica(name)
    return found is not None and found.out_of_traffic == "restarting"


async def _started_anew(world: Platform, pid: int):  # type: ignore[no-untyped-def]
    return next((r for r in await world.replicas("ready") if r.pid != pid), None)


async def _first_failed(world: Platform):  # type: ignore[no-untyped-def]
    return next(iter(await world.replicas("failed")), None)


async def answers(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return b"200" in line
