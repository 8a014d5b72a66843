"""What limits by control groups promise, on whichever version this machine has."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from easel_agent import cgroups
from easel_agent.limits import Group, Limits
from easel_kit.testing import eventually

NAME = f"easel-test-{os.getpid()}"
CPU_SHARE = ("cpu.shares", "cpu.weight")
WAITS = "import sys; sys.stdin.read(1); "
"""Programs here begin when they are told: by then they are in their group."""


@pytest.fixture
def limits() -> Iterator[Limits]:
    """Limits under a parent of their own."""
    found = cgroups.find(NAME)
    if found is None:
        pytest.skip("no control group is writable here")
    yield found
    found.close()


class Program:
    """A Python program in a group."""

    def __init__(self, group: Group, source: str) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", WAITS + source], stdin=subprocess.PIPE)
        group.add(self.child.pid)

    def go(self) -> None:
        """Let it begin."""
        assert self.child.stdin is not None
        self.child.stdin.write(b"x")
        self.child.stdin.close()

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.child.wait, 60)


def group(limits: Limits, name: str = "one", **wanted: Any) -> Group:
    """A group with room for a small program."""
    return limits.group(name, **({"memory_mib": 64, "cpu": 0.5, "processes": 16} | wanted))


async def test_memory_is_a_hard_limit(limits: Limits) -> None:
    """The kernel ends who passes it, and that is counted; what was used is known afterwards."""
    made = group(limits)
    program = Program(made, "x = bytearray(200 << 20)")
    assert made.kills() == 0

    program.go()

    assert await program.ended() == -signal.SIGKILL
    assert made.kills() >= 1
    peak = made.peak_mib()
    assert peak is None or 32 < peak <= 64  # unknown on version 2 before Linux 5.19
    made.remove()


async def test_usage_is_the_programs_own(limits: Limits) -> None:
    """CPU time and resident memory."""
    made = group(limits)
    program = Program(made, "x = bytearray(32 << 20)\nwhile True: pass")
    program.go()

    def used() -> bool:
        found = made.usage()
        return found is not None and found.cpu_s > 0.5 and 32 < found.memory_mib < 64

    await eventually(used, 60)
    program.child.kill()
    await program.ended()
    made.remove()


async def test_processes_are_counted(limits: Limits) -> None:
    """A fork bomb stays inside."""
    made = group(limits, processes=8)
    forks = "import os, time\nfor n in range(50):\n  try:\n    pid = os.fork()\n"
    program = Program(made, f"{forks}  except BlockingIOError:\n    os._exit(n)\n  if pid == 0: time.sleep(600)\n")
    program.go()

    assert await program.ended() == 7  # itself and seven more

    left = [int(pid) for pid in (_directory() / "one/cgroup.procs").read_text().split()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == 7


async def test_the_share_of_cpu_follows_what_is_reserved(limits: Limits) -> None:
    """Four cores weigh four times as much as one; where CPU cannot be shared out, that is said."""
    for name, cpu in (("one", 1.0), ("four", 4.0)):
        group(limits, name, cpu=cpu)

    shares = [_share(name) for name in ("one", "four")]

    assert (None in shares) == ("no share of CPU" in limits.sentence)
    assert shares == [None, None] or (shares[0] and shares[1] == 4 * shares[0])


async def test_leftovers_are_removed_but_never_the_living(limits: Limits) -> None:
    """Those called by name stay, and those in which something runs."""
    program = Program(group(limits, "living"), "")
    for name in ("left", "kept"):
        group(limits, name)

    removed = limits.clean(keep={"kept"})

    directory = _directory()
    assert removed >= 1
    assert {path.name for path in directory.iterdir() if path.is_dir()} == {"living", "kept"}
    program.go()
    await program.ended()

    def all_gone() -> bool:
        limits.clean()
        return not [path for path in directory.iterdir() if path.is_dir()]

    await eventually(all_gone)  # the kernel may still be letting go of the program


def _directory() -> Path:
    """Where this test's groups lie: below the memory controller in version 1."""
    found = [path for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup") for path in Path(root).rglob(NAME)]
    return found[0]


def _share(name: str) -> int | None:
    files = [path / file for path in Path("/sys/fs/cgroup").rglob(f"{NAME}/{name}") for file in CPU_SHARE]
    return next((int(file.read_text()) for file in files if file.exists()), None)
