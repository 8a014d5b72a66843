"""Control groups, version 2: the unified hierarchy."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from easel_agent.cgroup_files import MIB, remove, remove_children, sentence, table
from easel_agent.limits import Group
from easel_agent.model import Usage


class LimitsV2:
    """The unified hierarchy."""

    def __init__(self, root: Path, parent: Path) -> None:
        """`parent`, below the hierarchy's root, gives the groups in it their controllers already."""
        self._root, self._parent = root, parent
        self.sentence = sentence("cgroup v2", (parent / "cgroup.subtree_control").read_text().split())

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
        return remove_children(self._parent, keep)

    def enclose(self, *, cpu: float, memory_mib: int) -> str | None:
        """See Limits."""
        have = (self._parent / "cgroup.subtree_control").read_text().split()
        if cpu and "cpu" not in have:
            return None
        if memory_mib:
            (self._parent / "memory.max").write_text(str(memory_mib * MIB))
            if (self._parent / "memory.swap.max").exists():
                (self._parent / "memory.swap.max").write_text("0")
        if cpu:
            (self._parent / "cpu.max").write_text(f"{round(cpu * 100_000)} 100000")
        return "/" + str(self._parent.relative_to(self._root))

    def close(self) -> None:
        """See Limits."""
        remove_children(self._parent, ())
        remove(self._parent)


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
            memory = table(self._path / "memory.stat")
            cpu = table(self._path / "cpu.stat")
        except OSError:
            return None
        used = memory.get("anon", 0) + memory.get("file_mapped", 0)
        return Usage(cpu_s=cpu.get("usage_usec", 0) / 1e6, memory_mib=used / MIB)

    def kills(self) -> int:
        """See Group."""
        try:
            return table(self._path / "memory.events").get("oom_kill", 0)
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
        remove(self._path)
