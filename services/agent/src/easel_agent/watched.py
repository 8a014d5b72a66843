"""Limits where no control group is writable: the agent looks at resident memory once a second and kills."""

from __future__ import annotations

from collections.abc import Collection

from easel_agent import proc
from easel_agent.limits import Group
from easel_agent.model import Usage

SENTENCE = (
    "watched: no control group is writable here; resident memory is looked at once a second and a replica above its "
    "limit is killed, so a fast growth may pass the limit for a second; CPU is not limited"
)


class LimitsWatched:
    """See Limits."""

    sentence = SENTENCE

    def group(self, name: str, *, memory_mib: int, cpu: float, processes: int) -> Group:
        """See Limits; `cpu` and `processes` cannot be limited."""
        return GroupWatched(memory_mib)

    def clean(self, keep: Collection[str] = ()) -> int:
        """See Limits."""
        return 0

    def enclose(self, *, cpu: float, memory_mib: int) -> str | None:
        """See Limits."""
        return None

    def close(self) -> None:
        """Nothing was made."""


class GroupWatched:
    """The processes below those that were added."""

    def __init__(self, memory_mib: int) -> None:
        self._limit_mib = memory_mib
        self._roots: list[int] = []
        self._peak: float | None = None
        self.table: proc.ProcessTable | None = None
        """Set by the sampler, so that all replicas share one reading of /proc."""

    def add(self, pid: int) -> None:
        """See Group."""
        self._roots.append(pid)

    def usage(self) -> Usage | None:
        """See Group."""
        found = proc.usage(self._pids())
        if found is None:
            return None
        memory_mib = found.memory_mib
        if memory_mib > self._limit_mib:
            memory_mib = proc.proportional_mib(self._pids())
        self._peak = max(self._peak or 0.0, memory_mib)
        return Usage(cpu_s=found.cpu_s, memory_mib=memory_mib)

    def kills(self) -> int:
        """The kernel kills nothing here."""
        return 0

    def peak_mib(self) -> float | None:
        """See Group."""
        return self._peak

    def remove(self) -> None:
        """Nothing was made."""

    def _pids(self) -> list[int]:
        table = self.table or proc.ProcessTable()
        return [pid for root in self._roots for pid in (root, *table.below(root))]
