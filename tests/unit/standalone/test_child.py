"""Processes under the supervisor, with tiny commands as children."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from easel_kit.testing import eventually
from easel_standalone import leftovers
from easel_standalone.child import Child, Plan

ENV = dict(os.environ)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def _yes() -> bool | str:
    return True


def plan(tmp_path: Path, script: str, *, grace_s: float = 5.0) -> Plan:
    """A process that runs a shell script."""
    return Plan(
        name="tiny", command=["/bin/sh", "-c", script], env=ENV, log=tmp_path / "tiny.log", is_ready=_yes,
        stop_grace_s=grace_s,
    )  # fmt: skip


@pytest.fixture
async def children() -> AsyncIterator[list[Child]]:
    """Children to be stopped when the test ends."""
    started: list[Child] = []
    yield started
    await asyncio.gather(*(child.stop() for child in started))


async def test_killed_process_is_started_again(tmp_path: Path, children: list[Child]) -> None:
    """Restart after kill -9, with another pid and a count."""
    child = Child(plan(tmp_path, "exec sleep 1000"))
    children.append(child)
    child.start()
    first = await eventually(lambda: child.pid)
    os.kill(first, signal.SIGKILL)

    second = await eventually(lambda: child.pid != first and child.pid)

    assert second != first
    assert child.restarts == 1
    assert child.last_exit == "killed by SIGKILL"


async def test_process_that_ends_at_once_backs_off(tmp_path: Path, children: list[Child]) -> None:
    """Its restarts grow slower than it ends; its last words are kept."""
    child = Child(plan(tmp_path, "echo no config; exit 3"))
    children.append(child)
    child.start()

    await eventually(lambda: child.restarts >= 3 and child.state == "backing off")

    assert child.pid is None
    assert child.last_exit == "exit code 3"
    assert child.log.last_lines(1) == ["no config"]
    assert (tmp_path / "tiny.log").read_text().startswith("no config\n")


async def test_stop_ends_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    """After the grace the whole group is killed, children included."""
    child = Child(plan(tmp_path, "trap '' TERM; sleep 1000 & echo $!; while :; do sleep 0.1; done", grace_s=0.2))
    child.start()
    grandchild = int((await eventually(lambda: child.log.last_lines(1)))[0])

    await child.stop()

    assert child.state == "stopped"
    assert child.pid is None
    await eventually(lambda: not alive(grandchild))


async def test_command_that_does_not_exist_is_a_failed_life(tmp_path: Path, children: list[Child]) -> None:
    """It is told like any other end, and tried again."""
    missing = Plan(name="x", command=["/does/not/exist"], env=ENV, log=tmp_path / "x.log", is_ready=_yes)
    child = Child(missing)
    children.append(child)
    child.start()

    await eventually(lambda: child.restarts >= 2)

    assert "No such file" in "\n".join(child.log.last_lines())


async def test_retired_process_is_left_alone_and_not_started_again(tmp_path: Path, children: list[Child]) -> None:
    """It ends when it has finished; nobody asks whether it is ready meanwhile."""
    child = Child(plan(tmp_path, "while [ ! -e done ]; do sleep 0.05; done".replace("done ]", f"{tmp_path}/done ]")))
    children.append(child)
    child.start()
    await eventually(child.check)
    child.retire()
    assert not await child.wait_end(0.2)
    assert (child.state, await child.check(), child.restarts) == ("finishing", False, 0)
    (tmp_path / "done").touch()

    assert await child.wait_end(20)
    assert (child.state, child.pid, child.restarts) == ("stopped", None, 0)


async def test_next_life_may_have_another_plan(tmp_path: Path, children: list[Child]) -> None:
    """Asked for after the end of the first, and not before."""
    second = plan(tmp_path, "echo second; exec sleep 1000")
    first = msgspec.structs.replace(plan(tmp_path, "echo first; exit 1"), again=lambda: second)
    child = Child(first)
    children.append(child)
    child.start()

    await eventually(lambda: child.log.last_lines() == ["second"])
    assert (tmp_path / "tiny.log").read_text() == "first\nsecond\n"


PARENT = """
import asyncio, sys
from pathlib import Path
from easel_standalone.child import Child, Plan

async def yes(): return True

async def main():
    plan = Plan(name="tiny", command=["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], env={},
                log=Path(sys.argv[1]), is_ready=yes)
    child = Child(plan)
    child.start()
    while not child.pid: await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    print(child.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_kill_of_the_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """The kernel ends the child, even one that ignores SIGTERM."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "x.log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert psutil.pid_exists(child)

    parent.kill()
    await parent.wait()

    await eventually(lambda: not alive(child))


def test_leftovers_are_ended_only_when_they_are_ours(tmp_path: Path) -> None:
    """A pid that another process has by now is not touched."""
    file = tmp_path / "children.json"
    ours, other = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    try:
        leftovers.remember(file, {"control": ours.pid, "router": other.pid})
        ticks = str(leftovers.living(file)[1][0].start_ticks)
        file.write_text(file.read_text().replace(f'"pid":{other.pid},"start_ticks":{ticks}',
                                                 f'"pid":{other.pid},"start_ticks":1'))  # fmt: skip

        ended = leftovers.end(file, grace_s=0.1)

        assert ended == ["control"]
        assert ours.wait(5) is not None
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
