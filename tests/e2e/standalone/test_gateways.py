"""Two gateways on one platform: they share the ports, one may die, both are replaced under load, nothing is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from easel_kit.testing import eventually, short_directory
from easel_sdk import Client
from tests.e2e.platform import Executions, Platform, deploy, remove, running_platform, spec
from tests.steady import steady

LOST = {"IncompleteReadError", "ConnectionResetError", "BrokenPipeError"}
NAME = "gated"
EVENTS = 16
GRACE_S = 30
"""More than the events take; the SDK's own connection is idle, and kept for so long."""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """A platform with two gateways."""
    with short_directory() as path, running_platform(path / "home", options=("--gateways", "2")) as made:
        yield made


def gateways(platform: Platform) -> dict[str, int]:
    """Pid of each gateway's process, those that finish included."""
    return {p["name"]: p["pid"] for p in platform.read("status") if p["name"].startswith("envoy")}


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def ended(pids: dict[str, int]) -> None:
    """Returns when none of them lives."""
    await eventually(lambda: not [pid for pid in pids.values() if alive(pid)], 60)


async def stream_of_events(port: int, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One that takes longer than a restart, and has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /api/predict/{NAME}/events?n={EVENTS}&s=0.5 HTTP/1.1\r\nhost: easel\r\nconnection: close\r\n"
    writer.write(f"{head}authorization: {token}\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_each_gateway_serves_and_may_die(platform: Platform, easel: Client, tmp_path: Path) -> None:
    """kill -9 of one under load: each caller loses at most what it had there; it is back; nothing ran twice."""
    executions = Executions(tmp_path)
    service = await deploy(easel, executions.of(spec(NAME, instance=2)))
    before = await asyncio.to_thread(gateways, platform)
    assert sorted(before) == ["envoy", "envoy-1"]
    async with steady(platform.port, NAME, service.token, keeping=4, connecting=4) as load:
        await load.answered_more(200)
        await platform.kill("envoy-1")
        await load.answered_more(200)
        failed = dict(load.failed)
        await load.answered_more(200)

    assert set(failed.values()) <= LOST
    assert len({mark.partition("-")[0] for mark in failed}) == len(failed), "one request of a caller at most"
    assert load.failed == failed, "failures went on"
    load.assert_nothing_ran_twice(executions.counts())
    now = await asyncio.to_thread(gateways, platform)
    assert (now["envoy"], now["envoy-1"] != before["envoy-1"]) == (before["envoy"], True)
    await remove(easel, NAME)


async def test_gateways_are_replaced_under_load(platform: Platform, easel: Client, tmp_path: Path) -> None:
    """Twice: no request fails, whether its caller keeps its connection or not, nor a stream that runs; the control
    listener answers as well; a route changed meanwhile reaches everybody."""
    executions = Executions(tmp_path)
    service = await deploy(easel, executions.of(spec(NAME, instance=2)))
    for _ in range(2):
        before = await asyncio.to_thread(gateways, platform)
        async with steady(platform.port, NAME, service.token, keeping=4, connecting=4) as load:
            await load.answered_more(100)
            stream, writer = await stream_of_events(platform.port, service.token)
            done = await asyncio.to_thread(platform.read, "gateway", "restart", "--grace", str(GRACE_S))
            scaled = await easel.services.scale(NAME, 3)
            await easel.wait(NAME, generation=scaled.generation, timeout_s=90)
            await load.answered_more(200)
            assert [r["how"] for r in done] == ["handed over"] * 2
            assert (await stream.read()).count(b"data:") == EVENTS
            writer.close()
            await ended(before)
            scaled = await easel.services.scale(NAME, 2)
            await easel.wait(NAME, generation=scaled.generation, timeout_s=90)

        assert load.failed == {}
        load.assert_nothing_ran_twice(executions.counts())
        now = await asyncio.to_thread(gateways, platform)
        assert sorted(now) == ["envoy", "envoy-1"]
        assert not set(now.values()) & set(before.values())
        executions.forget()
    await remove(easel, NAME)


async def test_one_that_finishes_is_shown_and_the_next_restart_waits(platform: Platform) -> None:
    """`easel status` says what it still has; `easel gateway restart` says when it may be asked again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
    writer.write(b"GET /api/predict/none HTTP/1.1\r\nhost: easel\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")
    await asyncio.to_thread(platform.easel, "gateway", "restart", "--grace", "3600")

    async def one_finishes() -> bool:
        shown = await asyncio.to_thread(platform.easel, "status")
        return "connections: 1" in shown and shown.startswith("ready")

    await eventually(one_finishes, 60)
    refused = await asyncio.to_thread(platform.try_easel, "gateway", "restart")
    assert (refused.returncode, "STILL_FINISHING" in refused.stderr) == (1, True)
    writer.close()
    await eventually(lambda: len(gateways(platform)) == 2, 60)


def test_another_platform_at_the_same_port_is_refused(platform: Platform, tmp_path: Path) -> None:
    """Although Envoy would let it listen there."""
    other = Platform(tmp_path / "other")
    done = other.try_easel("up", "--port", str(platform.port), "--control-port", str(other.control_port), "--detach")

    assert done.returncode == 1
    assert "PORT_IN_USE" in done.stderr
    assert "envoy" in done.stderr


def test_down_leaves_nothing_and_up_remembers(platform: Platform) -> None:
    """Neither a process nor a socket to hand over by nor shared memory; as many gateways are there again."""
    platform.easel("gateway", "restart")
    processes = [p["pid"] for p in platform.read("status")]
    shared = [file for file in Path("/dev/shm").glob("envoy_shared_memory_*") if file.stat().st_uid == os.geteuid()]
    platform.down()
    assert not [pid for pid in processes if alive(pid)]
    ours = _shared_by(platform)
    assert ours
    assert not [file for file in shared if file.name in ours and file.exists()]

    platform.up()
    assert sorted(gateways(platform)) == ["envoy", "envoy-1"]


def test_killed_supervisor_leaves_nothing_either(platform: Platform) -> None:
    """Also in the middle of a restart; the next `up` serves."""
    supervisor = psutil.Process(platform.pid("supervisor"))
    with ThreadPoolExecutor() as pool:
        restart = pool.submit(platform.try_easel, "gateway", "restart")
        asyncio.run(eventually(lambda: sum(p.name() == "envoy" for p in supervisor.children()) == 3, 60))
        family = supervisor.children(recursive=True)
        supervisor.kill()
        assert restart.result().returncode == 4
    _, left = psutil.wait_procs(family, timeout=30)
    assert left == []
    platform.up()
    assert len(gateways(platform)) == 2


def none_lives(pids: dict[str, int]) -> bool:
    """Whether all of them have ended."""
    return not [pid for pid in pids.values() if alive(pid)]


def _shared_by(platform: Platform) -> set[str]:
    from easel_standalone import envoy
    from easel_standalone.decide.gateways import Process
    from easel_standalone.home import Home

    home = Home(platform.home)
    names = envoy.names(home.config().gateways)
    return {
        Process(gateway=name, number=0, base_id=base_id).shared_memory
        for name in names
        for base_id in envoy.ids_of(home, home.config(), name)
    }
