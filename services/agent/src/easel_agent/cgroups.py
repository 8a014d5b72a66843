"""Limits by control groups, version 1 or 2, where this process may make them; found by trying.

Memory is a hard limit (no swap). CPU is a share: a replica gets what it reserved when the node is busy and may use
more when it is idle. The number of processes is limited so that a fork bomb stays inside.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from easel_agent.model import Usage

ROOT = Path("/sys/fs/cgroup")
MIB = 1024 * 1024
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Group(Protocol):
    """The limits of one replica."""

    def add(self, pid: int) -> None:
        """Put a process under the limits."""

    def usage(self) -> Usage | None:
        """What is used now; None when nothing runs."""

    def kills(self) -> int:
        """How often the kernel killed a process of the group for memory."""

    def peak_mib(self) -> float | None:
        """Most memory used so far."""

    def remove(self) -> None:
        """Take the group away; its processes have ended."""


class Limits(Protocol):
    """How replicas are limited on this machine."""

    sentence: str
    """As the API says it: `cgroup v1`, `cgroup v2`, `watched: ...`."""

    def group(self, name: str, *, memory_mib: int, cpu: float, processes: int) -> Group:
        """New limits for a replica."""

    def clean(self, keep: Collection[str] = ()) -> int:
        """Remove groups that are left over, all but those called as in `keep`; how many."""

    def close(self) -> None:
        """The agent ends: remove the parent group too."""


def find(name: str, root: Path = ROOT) -> Limits | None:
    """The limits this process may set, under a parent group called `name`; None: no control group is writable."""
    own = _own_groups()
    memory = root / "memory"
    if memory.is_dir() and "memory" in own:
        with contextlib.suppress(OSError):
            return LimitsV1(root, own, name)
    for base in (root, root / "unified"):
        if (base / "cgroup.controllers").is_file():
            return _find_v2(base, own.get("", "/"), name)
    return None


def _own_groups() -> dict[str, str]:
    """Controller → path of this process's group; version 2 is the empty controller."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), path)
    return found


# ---- version 1


class LimitsV1:
    """One hierarchy per controller; memory is required, the others are used where writable."""

    sentence = "cgroup v1"

    def __init__(self, root: Path, own: dict[str, str], name: str) -> None:
        """Raises OSError when the memory controller cannot be used."""
        self._parents: dict[str, Path] = {}
        for controller in ("memory", "cpu", "cpuacct", "pids"):
            parent = root / controller / own.get(controller, "/").lstrip("/") / name
            try:
                parent.mkdir(exist_ok=True)
            except OSError:
                if controller == "memory":
                    raise
                continue
            self._parents[controller] = parent
        trial = self._parents["memory"] / "trial"
        trial.mkdir(exist_ok=True)
        (trial / "memory.limit_in_bytes").write_text(str(64 * MIB))
        trial.rmdir()

    def group(self, name: str, *, memory_mib: int, cpu: float, processes: int) -> Group:
        """See Limits."""
        paths = {controller: parent / name for controller, parent in self._parents.items()}
        for path in set(paths.values()):
            path.mkdir(parents=True, exist_ok=True)
        (paths["memory"] / "memory.limit_in_bytes").write_text(str(memory_mib * MIB))
        swap = paths["memory"] / "memory.memsw.limit_in_bytes"
        if swap.exists():
            swap.write_text(str(memory_mib * MIB))
        if "cpu" in paths:
            (paths["cpu"] / "cpu.shares").write_text(str(max(2, round(cpu * 1024))))
        if "pids" in paths:
            (paths["pids"] / "pids.max").write_text(str(processes))
        return GroupV1(paths)

    def clean(self, keep: Collection[str] = ()) -> int:
        """See Limits."""
        return sum(_remove_children(parent, keep) for parent in self._parents.values())

    def close(self) -> None:
        """See Limits."""
        for parent in self._parents.values():
            _remove_children(parent, ())
            _remove(parent)


class GroupV1:
    """A replica's group in each hierarchy."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths

    def add(self, pid: int) -> None:
        """See Group."""
        for path in self._paths.values():
            (path / "cgroup.procs").write_text(str(pid))

    def usage(self) -> Usage | None:
        """Resident means: anonymous, shared and mapped memory; not the page cache."""
        try:
            stat = _table(self._paths["memory"] / "memory.stat")
            cpu = self._paths.get("cpuacct")
            cpu_ns = int((cpu / "cpuacct.usage").read_text()) if cpu else 0
        except OSError:
            return None
        used = stat.get("total_rss", 0) + stat.get("total_mapped_file", 0)
        return Usage(cpu_s=cpu_ns / 1e9, memory_mib=used / MIB)

    def kills(self) -> int:
        """See Group."""
        try:
            return _table(self._paths["memory"] / "memory.oom_control").get("oom_kill", 0)
        except OSError:
            return 0

    def peak_mib(self) -> float | None:
        """See Group."""
        try:
            return int((self._paths["memory"] / "memory.max_usage_in_bytes").read_text()) / MIB
        except OSError:
            return None

    def remove(self) -> None:
        """See Group."""
        for path in self._paths.values():
            _remove(path)


# ---- version 2


def _find_v2(base: Path, own: str, name: str) -> Limits | None:
    """The nearest group, from our own up to the root, in which children with a memory controller can be made."""
    path = base / own.lstrip("/")
    while True:
        parent = path / name
        try:
            parent.mkdir(exist_ok=True)
            _enable(path)
            _enable(parent)
            limits = LimitsV2(parent)
            limits.group("trial", memory_mib=64, cpu=1, processes=16).remove()
        except OSError:
            with contextlib.suppress(OSError):
                parent.rmdir()
        else:
            return limits
        if path == base:
            return None
        path = path.parent


def _enable(path: Path) -> None:
    """Let children of `path` use the controllers; raises OSError where processes live beside (EBUSY)."""
    have = (path / "cgroup.controllers").read_text().split()
    on = (path / "cgroup.subtree_control").read_text().split()
    for controller in ("memory", "cpu", "pids"):
        if controller in have and controller not in on:
            (path / "cgroup.subtree_control").write_text(f"+{controller}")


class LimitsV2:
    """The unified hierarchy."""

    sentence = "cgroup v2"

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def group(self, name: str, *, memory_mib: int, cpu: float, processes: int) -> Group:
        """See Limits."""
        path = self._parent / name
        path.mkdir(exist_ok=True)
        (path / "memory.max").write_text(str(memory_mib * MIB))
        wanted = {
            "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": str(processes),
            "cpu.weight": str(min(10_000, max(1, round(cpu * 100)))),
        }  # fmt: skip
        for file, value in wanted.items():
            if (path / file).exists():
                (path / file).write_text(value)
        return GroupV2(path)

    def clean(self, keep: Collection[str] = ()) -> int:
        """See Limits."""
        return _remove_children(self._parent, keep)

    def close(self) -> None:
        """See Limits."""
        _remove_children(self._parent, ())
        _remove(self._parent)


class GroupV2:
    """A replica's group."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, pid: int) -> None:
        """See Group."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def usage(self) -> Usage | None:
        """Resident means: anonymous, shared and mapped memory; not the page cache."""
        try:
            memory = _table(self._path / "memory.stat")
            cpu = _table(self._path / "cpu.stat")
        except OSError:
            return None
        used = memory.get("anon", 0) + memory.get("file_mapped", 0)
        return Usage(cpu_s=cpu.get("usage_usec", 0) / 1e6, memory_mib=used / MIB)

    def kills(self) -> int:
        """See Group."""
        try:
            return _table(self._path / "memory.events").get("oom_kill", 0)
        except OSError:
            return 0

    def peak_mib(self) -> float | None:
        """See Group; Linux 5.19."""
        try:
            return int((self._path / "memory.peak").read_text()) / MIB
        except OSError:
            return None

    def remove(self) -> None:
        """See Group."""
        _remove(self._path)


def _table(path: Path) -> dict[str, int]:
    """Lines of `name number`."""
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def _remove(path: Path) -> None:
    """Remove an empty group; the kernel may still be letting go of its last process, then `clean` finds it later."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise


def _remove_children(parent: Path, keep: Collection[str]) -> int:
    """Remove empty groups below `parent`; those that still hold processes stay and are found again later."""
    removed = 0
    for child in _directories(parent):
        if child.name in keep:
            continue
        with contextlib.suppress(OSError):
            child.rmdir()
            removed += 1
    return removed


def _directories(parent: Path) -> Sequence[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
