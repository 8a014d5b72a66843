"""Once a second: what replicas and the node use, who is above a watched limit, strays, and the caps of what grows."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from msgspec import Struct

from easel_agent import proc
from easel_agent.archives import CodeStore
from easel_agent.docker.packages import Packages
from easel_agent.environments import Environments
from easel_agent.fleet import Fleet
from easel_agent.limits import Limits
from easel_agent.processes import Children
from easel_agent.replica import Replica
from easel_agent.sources import Sources
from easel_agent.watched import GroupWatched
from easel_contracts.metrics import NodeMetrics, ReplicaMetrics
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("sampler")
Publish = Callable[[str, str, Struct], Awaitable[None]]
"""(kind, key, metrics)"""
PRUNE_EVERY_S = 300.0
MIB = 1024 * 1024


class Caches(Struct, kw_only=True):
    """What grows, and is pruned."""

    environments: Environments
    code: CodeStore
    sources: Sources
    packages: Packages | None
    limits: Limits
    sweep: Callable[[], None]
    """Begins to remove what is left in the engine of replicas that nobody knows."""


class Sampler:
    """Runs as long as the agent."""

    def __init__(self, *, fleet: Fleet, children: Children, clock: Clock, publish: Publish, workspace: str,
                 caches: Caches, logs_total_bytes: int) -> None:  # fmt: skip
        self._fleet, self._children, self._clock, self._publish = fleet, children, clock, publish
        self._workspace, self._caches, self._logs_total_bytes = workspace, caches, logs_total_bytes
        self._cpu_before: dict[str, tuple[float, float]] = {}
        self._node_cpu_before: tuple[float, float] | None = None

    async def run(self) -> None:
        """Sample every second; prune every five minutes."""
        pruned = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            await self.sample()
            if began - pruned >= PRUNE_EVERY_S:
                pruned = began
                await self.prune()
            await self._clock.sleep(max(0.05, 1.0 - (self._clock.monotonic() - began)))

    async def sample(self) -> None:
        """One round."""
        if strays := self._children.sweep():
            log.warning("ended stray processes", count=strays)
        replicas = list(self._fleet.replicas.values())
        table = proc.ProcessTable() if any(isinstance(r.group, GroupWatched) for r in replicas) else None
        for replica in replicas:
            found = self._measure(replica, table)
            if found is not None:
                await self._publish("replica", replica.spec.service, found)
        self._cpu_before = {name: value for name, value in self._cpu_before.items() if name in self._fleet.replicas}
        await self._publish("node", self._fleet.node.node_id, self._measure_node())

    async def prune(self) -> None:
        """Keep everything that grows under its cap."""
        used, caches = self._fleet.in_use(), self._caches
        await asyncio.to_thread(caches.environments.prune, used.venvs)
        if caches.packages is not None:
            await asyncio.to_thread(caches.packages.prune, used.venvs)
        await asyncio.to_thread(caches.code.prune, used.archives)
        await caches.sources.prune(used.sources)
        caches.limits.clean(keep=self._fleet.replicas.keys())
        caches.sweep()
        await asyncio.to_thread(self._prune_logs, set(self._fleet.replicas))

    def _measure(self, replica: Replica, table: proc.ProcessTable | None) -> ReplicaMetrics | None:
        """None until there are two samples: unknown is not zero."""
        group, name = replica.group, replica.spec.replica
        if group is None or replica.program is None:
            self._cpu_before.pop(name, None)
            return None
        if isinstance(group, GroupWatched):
            group.table = table
        used, now = group.usage(), self._clock.monotonic()
        if used is None:
            return None
        if isinstance(group, GroupWatched) and used.memory_mib > replica.spec.revision.resources.memory_mib:
            replica.kill_for_memory(used.memory_mib)
        before = self._cpu_before.get(name)
        self._cpu_before[name] = (now, used.cpu_s)
        if before is None or used.cpu_s < before[1] or now <= before[0]:
            return None
        return ReplicaMetrics(
            workspace=replica.spec.workspace, service=replica.spec.service, replica=name,
            node=self._fleet.node.node_id, at_unix_s=self._clock.now().timestamp(),
            cpu_cores=(used.cpu_s - before[1]) / (now - before[0]), memory_mib=used.memory_mib,
        )  # fmt: skip

    def _measure_node(self) -> NodeMetrics:
        times, now = psutil.cpu_times(), self._clock.monotonic()
        busy = sum(times) - times.idle - times.iowait - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0)
        before, self._node_cpu_before = self._node_cpu_before, (now, busy)
        memory = psutil.virtual_memory()
        return NodeMetrics(
            node=self._fleet.node.node_id, at_unix_s=self._clock.now().timestamp(),
            cpu_cores=(busy - before[1]) / (now - before[0]) if before and now > before[0] else 0.0,
            memory_mib=(memory.total - memory.available) / MIB,
            disk_free_mib=shutil.disk_usage(self._fleet.node.home).free / MIB,
        )  # fmt: skip

    def _prune_logs(self, alive: set[str]) -> None:
        home = self._fleet.node.home / "logs"
        if not home.is_dir():
            return
        ended = sorted((path.stat().st_mtime, path) for path in home.iterdir() if path.name not in alive)
        sizes = {path: _size(path) for _, path in ended}
        total = sum(sizes.values())
        for _, path in ended:
            if total <= self._logs_total_bytes:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
