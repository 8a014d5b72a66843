"""Each second: publishes what Envoys and agents said of every service, keeps the last hour, tells watchers.

Keeps only services that exist (by control's facts); must never make up a number for a service nobody reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import msgspec

from easel_contracts.metrics import ReplicaMetrics, ServiceMetrics
from easel_kit.clock import Clock
from easel_monitor.decide.cell import Cell, Usage, cell_of
from easel_monitor.inventory import Inventory, Key
from easel_monitor.rings import History

Publish = Callable[[ServiceMetrics], Awaitable[None]]

USAGE_AGE_S = 3.5
"""How long a replica's last CPU and memory stand for it."""
WATCHER_QUEUE = 60
"""Seconds a slow watcher may lag before it loses the oldest."""


class Recorder:
    """The monitor's working memory."""

    def __init__(self, inventory: Inventory, clock: Clock, publish: Publish) -> None:
        self._inventory, self._clock, self._publish = inventory, clock, publish
        self._usage: dict[str, tuple[float, ReplicaMetrics]] = {}
        self._watchers: dict[Key, set[asyncio.Queue[Cell]]] = {}
        self.histories: dict[Key, History] = {}

    async def on_frame(self, seen: list[ServiceMetrics], at_unix_s: float) -> None:
        """One second: `seen` holds what the Envoys saw, empty when none reported."""
        by_service = {(s.workspace, s.service): s for s in seen}
        usage = self._usages()
        existing = self._inventory.services()
        for gone in self.histories.keys() - existing:
            del self.histories[gone]
        for key in existing:
            metrics = by_service.get(key)
            if metrics is not None:
                await self._publish(metrics)
            cell = cell_of(metrics, usage.get(key), self._inventory.replicas(key), at_unix_s)
            self.history(key).put(cell)
            self._tell(key, cell)

    def on_replica(self, payload: bytes) -> None:
        """One second of one replica, from its agent; raises msgspec.ValidationError for anything else."""
        metrics = _replica_metrics.decode(payload)
        self._usage[metrics.replica] = (self._clock.monotonic(), metrics)

    def history(self, key: Key) -> History:
        """The service's last hour; made when there is none."""
        return self.histories.get(key) or self.histories.setdefault(key, History())

    def window(self, key: Key, window_s: int) -> list[Cell]:
        """Its cells of the last window, oldest first; without the running second."""
        history = self.histories.get(key)
        return history.window(int(self._clock.now().timestamp()), window_s) if history else []

    @contextmanager
    def watch(self, key: Key) -> Iterator[asyncio.Queue[Cell]]:
        """Every second of a service as it ends, while the context lives."""
        queue: asyncio.Queue[Cell] = asyncio.Queue(WATCHER_QUEUE)
        self._watchers.setdefault(key, set()).add(queue)
        try:
            yield queue
        finally:
            self._watchers[key].discard(queue)
            if not self._watchers[key]:
                del self._watchers[key]

    def _tell(self, key: Key, cell: Cell) -> None:
        for queue in self._watchers.get(key, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(cell)

    def _usages(self) -> dict[Key, Usage]:
        """CPU and memory by service, of the replicas whose agents spoke lately."""
        oldest = self._clock.monotonic() - USAGE_AGE_S
        for replica in [r for r, (at, _) in self._usage.items() if at < oldest]:
            del self._usage[replica]
        found: dict[Key, Usage] = {}
        for _, metrics in self._usage.values():
            key = (metrics.workspace, metrics.service)
            before = found.get(key) or Usage(0.0, 0.0)
            found[key] = Usage(before.cpu_cores + metrics.cpu_cores, before.memory_mib + metrics.memory_mib)
        return found


_replica_metrics = msgspec.msgpack.Decoder(ReplicaMetrics)
