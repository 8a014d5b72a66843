"""Control groups, version 1: one hierarchy per controller."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

from easel_agent.cgroup_files import MIB, remove, remove_children, sentence, table
from easel_agent.limits import Group
from easel_agent.model import Usage

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")


class LimitsV1:
    """One hierarchy per controller; memory is required, the others are used where writable."""

    def __init__(self, root: Path, own: dict[str, str], name: str) -> None:
        """Raises OSError when the memory controller cannot be used."""
        self._root = root
        self._parents: dict[str, Path] = {}
        places = place_of({controller: own.get(controller, "/") for controller in CONTROLLERS})
        for controller in CONTROLLERS:
            parent = root / controller / places[controller].lstrip("/") / name
            try:
                parent.mkdir(parents=True, exist_ok=True)
            except OSError:
                if controller == "memory":
                    raise
                continue
            self._parents[controller] = parent
        self.sentence = sentence("cgroup v1", self._parents)
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
        return sum(remove_children(parent, keep) for parent in self._parents.values())

    def enclose(self, *, cpu: float, memory_mib: int) -> str | None:
        """See Limits."""
        if cpu and "cpu" not in self._parents:
            return None
        if memory_mib:
            memory = self._parents["memory"]
            (memory / "memory.limit_in_bytes").write_text(str(memory_mib * MIB))
            swap = memory / "memory.memsw.limit_in_bytes"
            if swap.exists():
                swap.write_text(str(memory_mib * MIB))
        if cpu:
            period_us = int((self._parents["cpu"] / "cpu.cfs_period_us").read_text())
            (self._parents["cpu"] / "cpu.cfs_quota_us").write_text(str(round(cpu * period_us)))
        places = {"/" + str(path.relative_to(self._root / controller)) for controller, path in self._parents.items()}
        return places.pop() if len(places) == 1 else ""

    def close(self) -> None:
        """See Limits."""
        for parent in self._parents.values():
            remove_children(parent, ())
            remove(parent)
        name = self._parents["memory"].relative_to(self._root / "memory")
        for controller in self._root.iterdir():  # an engine that puts containers into the group makes it everywhere
            with contextlib.suppress(OSError):
                for directory in (name, *name.parents[:-1]):  # what is not empty is somebody else's
                    (controller / directory).rmdir()


def place_of(own: Mapping[str, str]) -> dict[str, str]:
    """Where to make the parent in each hierarchy: at one and the same path in all where nothing is escaped by that.

    An engine knows one path for all hierarchies. `own`: this process's own groups, by controller; whatever limits these
    have must go on counting.
    """
    deepest = max(own.values(), key=len)
    if all(deepest == path or deepest.startswith(path.rstrip("/") + "/") for path in own.values()):
        return dict.fromkeys(own, deepest)
    return dict(own)


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
            stat = table(self._paths["memory"] / "memory.stat")
            cpu = self._paths.get("cpuacct")
            cpu_ns = int((cpu / "cpuacct.usage").read_text()) if cpu else 0
        except OSError:
            return None
        used = stat.get("total_rss", 0) + stat.get("total_mapped_file", 0)
        return Usage(cpu_s=cpu_ns / 1e9, memory_mib=used / MIB)

    def kills(self) -> int:
        """See Group."""
        try:
            return table(self._paths["memory"] / "memory.oom_control").get("oom_kill", 0)
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
            remove(path)
