"""Limits by control groups, version 1 or 2, where this process may make them; found by trying.

Memory is a hard limit (no swap). CPU is a share: a replica gets what it reserved when the node is busy and may use
more when it is idle. The number of processes is limited so that a fork bomb stays inside.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from easel_agent.cgroups_v1 import LimitsV1
from easel_agent.cgroups_v2 import LimitsV2
from easel_agent.limits import Limits

ROOT = Path("/sys/fs/cgroup")


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


def _find_v2(base: Path, own: str, name: str) -> Limits | None:
    """The nearest group, from our own up to the root, in which children with a memory controller can be made."""
    path = base / own.lstrip("/")
    while True:
        parent = path / name
        try:
            parent.mkdir(exist_ok=True)
            _enable(path)
            _enable(parent)
            limits = LimitsV2(base, parent)
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
