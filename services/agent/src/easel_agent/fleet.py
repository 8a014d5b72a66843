"""All replicas of the node: starts and stops them once, remembers them, and tells watchers what changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from easel_agent.decide.restarts import RestartPolicy
from easel_agent.inventory import Inventory, Started, start_time
from easel_agent.model import Restarting, Stopping
from easel_agent.replica import Replica
from easel_agent.replica_log import ReplicaLog, tail
from easel_agent.runtime import Node, Runtime, Survivor
from easel_contracts.errors import NotFound
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import RunSpec
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("fleet")
ADOPTED_WITHIN_S = 5.0
ENDED_SHOWN = 200
"""Ended replicas in a snapshot: the scheduler may have been away when they ended."""


class NodeChanged(Struct, frozen=True):
    """What the node can run is not what it was."""


class InUse(Struct, frozen=True):
    """Keys of what is in the caches."""

    venvs: set[str]
    archives: set[str]
    sources: set[str]


class Watch:
    """One reader of changes: which replicas it has not yet seen in their newest state."""

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.wake = asyncio.Event()
        self.node_changed = self.ended = False


class Fleet:
    """The node's replicas. All methods are for the event loop's thread."""

    def __init__(self, *, node: Node, runtimes: Mapping[str, Runtime], inventory: Inventory, clock: Clock,
                 log_file_bytes: int, log_files: int, policy: RestartPolicy | None = None) -> None:  # fmt: skip
        self.node, self._runtimes, self._inventory, self._clock = node, runtimes, inventory, clock
        self._log_file_bytes, self._log_files = log_file_bytes, log_files
        self.policy = policy or RestartPolicy()
        """For replicas that are started from here on."""
        self.replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch: Watch | None = None
        self._closing = False
        self.starts_failed = 0
        """Runs that ended without having been ready, and replicas that could not be prepared, since the start."""

    def start(self, run: RunSpec, fencing_token: int) -> bool:
        """Start a replica unless it is known, also as ended; True when it was. Raises Conflict for an old token."""
        self._inventory.check_token(fencing_token)
        if run.replica in self.replicas or run.replica in self._inventory.content.ended:
            return True
        self._inventory.begun(Started(replica=run.replica, service=run.service))
        self._begin(self._made(run))
        return False

    async def adopt(self, survivors: Sequence[Survivor]) -> None:
        """Go on with replicas that ran while no agent was there; returns when it is known which of them are ready.

        Not later than ADOPTED_WITHIN_S: what is not ready by then is reported so.
        """
        adopted = [await self._adopted(survivor) for survivor in survivors]
        end = self._clock.monotonic() + ADOPTED_WITHIN_S
        while self._clock.monotonic() < end and not all(replica.progress.ready for replica in adopted):
            await self._clock.sleep(0.02)

    async def _adopted(self, survivor: Survivor) -> Replica:
        replica = self._made(survivor.run, adopted=True)
        await survivor.attach(replica)
        replica.ip, replica.port, replica.uses = survivor.ip, survivor.port, survivor.uses
        self._begin(replica)
        return replica

    def _made(self, run: RunSpec, *, adopted: bool = False) -> Replica:
        kept = ReplicaLog(self.log_directory(run.replica), file_bytes=self._log_file_bytes, files=self._log_files)
        runtime = self._runtimes[run.revision.runtime]
        return Replica(run, self.node, runtime, self._clock, kept, self._on_change, self.policy, adopted=adopted)

    def _begin(self, replica: Replica) -> None:
        name = replica.spec.replica
        self.replicas[name] = replica
        self._on_change(replica)
        self._tasks[name] = asyncio.create_task(self._live(replica), name=f"replica {name}")

    def stop(self, replica_id: str, stopping: Stopping, fencing_token: int) -> bool:
        """Begin to end a replica; False when it is not known. Raises Conflict for an old token."""
        self._inventory.check_token(fencing_token)
        replica = self.replicas.get(replica_id)
        if replica is None:
            return replica_id in self._inventory.content.ended
        replica.orders.stop(stopping)
        return True

    def restart(self, replica_id: str, restarting: Restarting, fencing_token: int) -> bool:
        """Begin to start a replica's program anew; False when it is not known. Raises Conflict for an old token."""
        self._inventory.check_token(fencing_token)
        replica = self.replicas.get(replica_id)
        if replica is None:
            return replica_id in self._inventory.content.ended
        replica.orders.restart(restarting)
        return True

    async def watch(self, heartbeat_s: float) -> AsyncIterator[ReplicaReport | NodeChanged | None]:
        """Every report, then None (the snapshot is done), then each change; None again as heartbeat."""
        self._end_watch()
        mine = self._watch = Watch()
        try:
            for report in self.reports():
                yield report
            yield None
            while not mine.ended:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        await mine.wake.wait()
                mine.wake.clear()
                if mine.node_changed:
                    mine.node_changed = False
                    yield NodeChanged()
                elif not mine.dirty:
                    yield None
                while mine.dirty and not mine.ended:
                    replica_id = next(iter(mine.dirty))
                    del mine.dirty[replica_id]
                    yield self._report(replica_id)
        finally:
            mine.ended = True

    def reports(self) -> list[ReplicaReport]:
        """Every replica known, those that have ended first."""
        ended = list(self._inventory.content.ended.values())[-ENDED_SHOWN:]
        return [*ended, *(replica.report for replica in self.replicas.values())]

    async def logs(self, replica_id: str, *, tail_lines: int, follow: bool,
                   previous: bool) -> AsyncIterator[tuple[str, bytes]]:  # fmt: skip
        """Pieces of a replica's log, also of an ended one. Raises NotFound."""
        replica = self.replicas.get(replica_id)
        if replica is not None:
            async for piece in replica.log.read(tail_lines=tail_lines, follow=follow, previous=previous):
                yield piece
            return
        directory = self.log_directory(replica_id)
        if not directory.is_dir():
            raise NotFound("REPLICA_NOT_FOUND", f"node {self.node.node_id} has no log of replica {replica_id!r}")
        for piece in tail(directory, "previous" if previous else "current", self._log_files, tail_lines):
            yield piece

    def log_directory(self, replica_id: str) -> Path:
        """Where a replica's log is kept."""
        return self.node.home / "logs" / Path(replica_id).name

    async def keep(self) -> None:
        """Runs as long as the agent; replicas end with it, and so do watchers (before the server waits for them)."""
        try:
            await asyncio.Event().wait()
        finally:
            closing = asyncio.create_task(self.close())
            while not closing.done():  # to be asked twice changes nothing: replicas end in order
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({closing})
            closing.result()

    async def close(self) -> None:
        """End every replica at once: the agent ends."""
        self._closing = True
        for replica in self.replicas.values():
            replica.orders.stop(Stopping(grace_s=0, sigterm=False, idle=True))
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        for runtime in self._runtimes.values():
            await runtime.close()
        self._end_watch()

    def expected(self) -> frozenset[str]:
        """Replicas that an earlier run of the agent started and did not end."""
        return frozenset(self._inventory.content.started)

    def clear_leftovers(self, spared: Container[str] = ()) -> list[str]:
        """What an earlier run of the agent left, but for the replicas `spared`: processes and directories.

        Names of those replicas.
        """
        left = {name: entry for name, entry in self._inventory.content.started.items() if name not in spared}
        for entry in left.values():
            if entry.init_pid and start_time(entry.init_pid) == entry.init_started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.init_pid, signal.SIGKILL)
        for name in left:
            del self._inventory.content.started[name]
        self._inventory.write()
        replicas = self.node.home / "replicas"
        for directory in replicas.iterdir() if replicas.is_dir() else ():
            if directory.name not in spared:
                shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(self.node.home / "builds", ignore_errors=True)
        return list(left)

    def in_use(self) -> InUse:
        """What replicas use of the caches now."""
        uses = [replica.uses for replica in self.replicas.values()]
        return InUse(
            venvs={each.venv for each in uses if each.venv},
            archives={key for each in uses for key in each.archives},
            sources={key for each in uses for key in each.held},
        )

    def node_changed(self) -> None:
        """Have the reader of changes ask again what this node is."""
        if self._watch is not None:
            self._watch.node_changed = True
            self._watch.wake.set()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.ended = True
            self._watch.wake.set()

    async def _live(self, replica: Replica) -> None:
        name = replica.spec.replica
        try:
            await replica.live()
        except Exception as error:
            log.error("replica's task failed", replica=name, error=repr(error), exc_info=error)
        finally:
            self.replicas.pop(name, None)
            self._tasks.pop(name, None)
            if not self._closing:
                self._inventory.ended(replica.report)
            self._on_change(replica)

    def remember_pid(self, replica: Replica, pid: int | None) -> None:
        """A process that must not outlive the agent; kept for the agent's next run."""
        self._inventory.begun(
            Started(replica=replica.spec.replica, service=replica.spec.service, port=replica.port, init_pid=pid,
                    init_started=start_time(pid) if pid else 0)
        )  # fmt: skip

    def watchers(self) -> int:
        """Readers of changes: the scheduler, or nobody."""
        return int(self._watch is not None and not self._watch.ended)

    def _on_change(self, replica: Replica) -> None:
        if replica.start_failed and replica.spec.replica in self._tasks:
            self.starts_failed += 1
        if self._watch is not None:
            self._watch.dirty[replica.spec.replica] = None
            self._watch.wake.set()

    def _report(self, replica_id: str) -> ReplicaReport | None:
        replica = self.replicas.get(replica_id)
        return replica.report if replica else self._inventory.content.ended.get(replica_id)
