"""Finds out what kind of isolation works on this machine, and turns a replica into a plan for launch.py.

Found by trying, not by reading version numbers: kernels, containers and security modules all have a say.
"""

from __future__ import annotations

import marshal
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from easel_agent.decide.layout import Kind, Layout, Target, layout, links_on_the_way, visible
from easel_agent.model import Isolation

FIRST_UID = 1_900_000_000
"""Above what systemd's table of uid ranges gives to containers, below 2**31."""


class Machine:
    """The machine's files as decide.layout may see them; `uid` is the user whose rights count (None: our own)."""

    def __init__(self, uid: int | None) -> None:
        self._uid = uid

    def kind(self, path: str) -> Kind | None:
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            return "link"
        if stat.S_ISDIR(mode):
            return "dir"
        return "file" if stat.S_ISREG(mode) else "special"

    def children(self, path: str) -> Sequence[str]:
        return sorted(os.listdir(path))

    def link_target(self, path: str) -> str:
        return os.readlink(path)

    def passable(self, path: str) -> bool:
        if self._uid is None:
            return os.access(path, os.X_OK)
        try:
            return bool(os.stat(path).st_mode & stat.S_IXOTH)
        except OSError:
            return True  # not there yet: it will be made, open to all


class Plan(Struct, frozen=True, kw_only=True):
    """Everything launch.py needs to start one program."""

    isolation: Isolation
    uid: int | None
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    root: str
    """An empty directory on which the new root is built."""
    layout: Layout | None

    def to_wire(self) -> bytes:
        """As launch.py reads it. Holds secrets of the environment: only ever put into a memory file."""
        return marshal.dumps(
            {
                "user_ns": self.isolation.user_ns,
                "mount_ns": self.isolation.mount_ns,
                "pid_ns": self.isolation.pid_ns,
                "uid": self.uid,
                "argv": list(self.argv),
                "env": dict(self.env),
                "cwd": self.cwd,
                "root": self.root,
                "mounts": list(self.layout.mounts) if self.layout else [],
                "freeze": list(self.layout.freeze) if self.layout else [],
            }
        )


class Sandbox:
    """Makes plans for one kind of isolation."""

    def __init__(self, isolation: Isolation, hidden: Sequence[Path]) -> None:
        self.isolation = isolation
        self.hidden = tuple(sorted({os.path.realpath(path) for path in hidden}))

    def uid_for(self, index: int) -> int | None:
        """The user of replica number `index` on this node; None: the agent's own."""
        return FIRST_UID + index if self.isolation.own_uid else None

    def plan(self, *, argv: Sequence[str], env: Mapping[str, str], cwd: str, root: Path, uid: int | None,
             tmp: Path, targets: Sequence[Target], memory_mib: int) -> Plan:  # fmt: skip
        """A plan to run `argv` where `targets` can be seen, `tmp` is /tmp, and nothing else of Easel's is there."""
        made: Layout | None = None
        if self.isolation.mount_ns:
            made = self._layout(targets, tmp, uid, memory_mib)
        return Plan(isolation=self.isolation, uid=uid, argv=tuple(argv), env=dict(env), cwd=cwd,
                    root=os.path.realpath(root), layout=made)  # fmt: skip

    def _layout(self, targets: Sequence[Target], tmp: Path, uid: int | None, memory_mib: int) -> Layout:
        machine = Machine(uid)
        real: list[Target] = [
            Target(path="/tmp", source=str(tmp), writable=True),
            Target(path="/var/tmp", source=str(tmp), writable=True),
        ]
        links: list[tuple[object, ...]] = []
        for target in targets:
            path, passed = links_on_the_way(machine, target.path)
            source = os.path.realpath(target.source)
            if path == source and not target.writable and target.owner is None and visible(machine, path, self.hidden):
                continue
            real.append(Target(path=path, source=source, writable=target.writable, owner=target.owner))
            links += [("link", where, text) for where, text in passed if not visible(machine, where, self.hidden)]
        made = layout(machine, real, self.hidden, uid, shm_mib=max(64, memory_mib // 2))
        return Layout(mounts=(*made.mounts, *links), freeze=made.freeze)


def python_targets(executable: str) -> list[Target]:
    """What a replica must see so that the interpreter `executable` runs: its installation."""
    real = Path(os.path.realpath(executable))
    prefixes = {sys.base_prefix, sys.base_exec_prefix, str(real.parent.parent)}
    return [Target(path=prefix, source=prefix) for prefix in sorted(prefixes) if prefix not in ("/usr", "/")]


def kinds(root: bool) -> list[Isolation]:
    """What to try on this machine, the best first; the last always works."""
    if root:
        return [
            Isolation(user_ns=False, mount_ns=True, pid_ns=True, own_uid=True, sentence="uid+mounts"),
            Isolation(user_ns=False, mount_ns=False, pid_ns=False, own_uid=True, sentence="uid"),
            Isolation(user_ns=False, mount_ns=False, pid_ns=False, own_uid=False, sentence="not isolated"),
        ]
    why = "not isolated: replicas run as the same user as Easel"
    return [
        Isolation(user_ns=True, mount_ns=True, pid_ns=True, own_uid=False, sentence=f"{why} (own view of the files)"),
        Isolation(user_ns=False, mount_ns=False, pid_ns=False, own_uid=False, sentence=why),
    ]
