"""What limits of replicas are: the ports that control groups (cgroups.py) and the watcher (watched.py) fill."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from easel_agent.model import Usage


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

    def enclose(self, *, cpu: float, memory_mib: int) -> str | None:
        """Keep everything on this node below these sums, 0: no limit; the group in which an engine can put containers,
        as it names them (empty: there is none). None: that cannot be done here."""

    def close(self) -> None:
        """The agent ends: remove the parent group too."""
