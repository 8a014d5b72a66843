"""The process runtime where nothing can be separated and no control group is writable: same promises, said plainly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from easel_agent import isolation
from easel_agent.model import Isolation
from easel_agent.processes import Children, become_subreaper
from easel_agent.watched import LimitsWatched
from easel_contracts.spec import Mount
from easel_kit.testing import eventually
from tests.contract.agent.rig import Rig, process_runtime

PLAIN = Isolation(
    user_ns=False, mount_ns=False, pid_ns=False, own_uid=False, sentence="not isolated: test", mounts_refused="test"
)  # fmt: skip
SERVER = "python -m http.server $PORT"


@pytest.fixture
async def runtime(short_path: Path) -> AsyncIterator[Rig]:
    """The process runtime without isolation and control groups."""
    async with process_runtime(short_path / "agent", found=PLAIN, limits=LimitsWatched()) as made:
        yield made


async def test_ready_and_stopped_without_leftovers(runtime: Rig) -> None:
    """Also processes that left group and session are ended."""
    run = await runtime.run(script="setsid setsid sleep 300 & (setsid sleep 301 &) ; " + SERVER)
    report = await runtime.ready(run)
    below = runtime.processes(run)
    assert len(below) >= 4

    await runtime.stop(run)

    assert not [process for process in below if process.is_running()]
    started = [(seen.phase, seen.pid) for seen in runtime.seen[run.replica] if seen.phase == "starting"]
    assert started == [("starting", report.pid)]  # told once, with the pid
    assert report.isolation == "not isolated: test"
    assert report.limits.startswith("watched")


async def test_memory_is_watched(runtime: Rig) -> None:
    """Killed above the limit, and explained."""
    run = await runtime.run('python -c "x = bytearray(300 << 20); import time; time.sleep(60)"', memory_mib=128)

    report = await runtime.until(run, lambda seen: seen.phase == "backoff")

    assert report.cause == "oom"
    assert "of 128" in report.message


async def test_mounts_are_refused_with_the_reason(runtime: Rig, tmp_path: Path) -> None:
    """Except where there is nothing to mount."""
    same = await runtime.run(SERVER, mounts=(Mount(mount_path=str(tmp_path), host_path=str(tmp_path)),))
    other = await runtime.run(SERVER, mounts=(Mount(mount_path="/mnt/data", host_path=str(tmp_path)),))

    report = await runtime.until(other, lambda seen: seen.phase == "failed")

    assert report.cause == "mount"
    assert "/mnt/data" in report.message
    assert (await runtime.ready(same)).ready


async def test_replicas_die_with_a_killed_agent(short_path: Path) -> None:
    """Without a pid namespace the launcher notices and ends all."""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-m", "tests.contract.agent.plain_agent", str(short_path / "agent")]
    child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE)  # noqa: ASYNC220 (returns at once)
    try:
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == b"ready\n"
        below = psutil.Process(child.pid).children(recursive=True)
        assert len(below) >= 4
    finally:
        child.kill()
        child.wait()

    await eventually(lambda: not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])


async def test_what_works_here_is_found_by_trying(short_path: Path) -> None:
    """A kind that cannot start a program is not chosen; the sentence says which it is."""
    become_subreaper()

    found = await isolation.find(short_path, [short_path], Children(), root=os.geteuid() == 0)

    assert found.sentence.startswith(("uid", "not isolated: "))
    assert bool(found.mounts_refused) != found.mount_ns
