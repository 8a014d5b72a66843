"""What a replica's containers use: read from the kernel's own files where they can be seen, else asked of the engine.

The engine's figures take up to a second each and cost it work; files cost nothing. An agent in a container of its
own sees no files of others.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from easel_agent.cgroups_v1 import GroupV1
from easel_agent.cgroups_v2 import GroupV2
from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_agent.limits import Group
from easel_agent.model import Usage

ROOT = Path("/sys/fs/cgroup")
MIB = 1024 * 1024


class ContainerGroup:
    """See limits.Group; one for all containers of a run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._groups: dict[str, Group | None] = {}
        self._asked: dict[str, Usage] = {}
        self._asking: asyncio.Task[None] | None = None
        self._oom_kills = 0
        self._peak: float | None = None

    def follow(self, container: str, pid: int | None) -> None:
        """One more container; `pid` of its first process, as the agent sees it."""
        self._groups[container] = find(pid, container) if pid else None

    def add(self, pid: int) -> None:
        """The engine does that."""

    def usage(self) -> Usage | None:
        """See Group."""
        found = [group.usage() if group is not None else self._asked.get(name) for name, group in self._groups.items()]
        if any(group is None for group in self._groups.values()) and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        known = [each for each in found if each is not None]
        if not known:
            return None
        memory_mib = sum(each.memory_mib for each in known)
        self._peak = max(self._peak or 0.0, memory_mib)
        return Usage(cpu_s=sum(each.cpu_s for each in known), memory_mib=memory_mib)

    def on_oom(self) -> None:
        """The engine told of it."""
        self._oom_kills += 1

    def kills(self) -> int:
        """See Group; also those of a child, which `State.OOMKilled` does not tell."""
        return self._oom_kills

    def peak_mib(self) -> float | None:
        """As far as it was looked at."""
        return self._peak

    def remove(self) -> None:
        """The engine does that."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        for name in [name for name, group in self._groups.items() if group is None]:
            with contextlib.suppress(EngineAway, EngineError):
                seen = await self._engine.ask("GET", f"containers/{name}/stats",
                                              params={"stream": "0", "one-shot": "1"})  # fmt: skip
                used = seen.get("memory_stats", {})
                if "usage" in used:
                    stats = used.get("stats", {})
                    cached = stats.get("total_inactive_file", stats.get("inactive_file", 0))
                    self._asked[name] = Usage(cpu_s=seen["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
                                              memory_mib=(used["usage"] - cached) / MIB)  # fmt: skip


def find(pid: int, container: str, root: Path = ROOT) -> Group | None:
    """The control groups of a container's first process; None where they cannot be seen from here."""
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), path)
    if container not in paths.get("memory", "") and container not in paths.get("", ""):
        return None  # another process by now, or another machine's numbers
    if (memory := paths.get("memory")) and (root / "memory" / memory.lstrip("/")).is_dir():
        return GroupV1({name: root / name / paths[name].lstrip("/") for name in ("memory", "cpuacct") if name in paths})
    unified = root / paths.get("", "/").lstrip("/")
    return GroupV2(unified) if container in unified.name and unified.is_dir() else None
