"""All replicas of the node: starts and stops them once, remembers them, and tells watchers what changes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from easel_agent.decide.restarts import RestartPolicy
from easel_agent.inventory import Inventory, Started, start_time
from easel_agent.launching import Node, Preparer
from easel_agent.model import Restarting, Stopping
from easel_agent.replica import Replica
from easel_agent.replica_log import ReplicaLog, tail
from easel_contracts.errors import NotFound
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import RunSpec
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("fleet")
ENDED_SHOWN = 200
"""Ended replicas in a snapshot: the scheduler may have been away when they ended."""


class Watch:
    """One reader of changes: which replicas it has not yet seen in their newest state."""

    def __init__(self) -> None:
        self.dirty: dict[str, None] = {}
        self.wake = asyncio.Event()
        self.ended = False


class Fleet:
    """The node's replicas. All methods are for the event loop's thread."""

    def __init__(self, *, node: Node, preparer: Preparer, inventory: Inventory, clock: Clock,
                 log_file_bytes: int, log_files: int, policy: RestartPolicy | None = None) -> None:  # fmt: skip
        self.node, self._preparer, self._inventory, self._clock = node, preparer, inventory, clock
        self._log_file_bytes, self._log_files = log_file_bytes, log_files
        self.policy = policy or RestartPolicy()
        """For replicas that are started from here on."""
        self.replicas: dict[str, Replica] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch: Watch | None = None
        self._closing = False
        self.starts_failed = 0
        """Runs that ended without having been ready, and replicas that could not be prepared, since the start."""
        node.started = self._remember

    def start(self, run: RunSpec, fencing_token: int) -> bool:
        """Start a replica unless it is known, also as ended; True when it was. Raises Conflict for an old token."""
        self._inventory.check_token(fencing_token)
        if run.replica in self.replicas or run.replica in self._inventory.content.ended:
            return True
        self._inventory.begun(Started(replica=run.replica, service=run.service))
        kept = ReplicaLog(self.log_directory(run.replica), file_bytes=self._log_file_bytes, files=self._log_files)
        replica = Replica(run, self.node, self._preparer, self._clock, kept, self._on_change, self.policy)
        self.replicas[run.replica] = replica
        self._on_change(replica)
        self._tasks[run.replica] = asyncio.create_task(self._live(replica), name=f"replica {run.replica}")
        return False

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

    async def watch(self, heartbeat_s: float) -> AsyncIterator[ReplicaReport | None]:
        """Every report, then None (the snapshot is done), then each change; None again as heartbeat."""
        if self._watch is not None:
            self._watch.ended = True
            self._watch.wake.set()
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
                if not mine.dirty:
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
        self.node.limits.close()
        if self._watch is not None:
            self._watch.ended = True
            self._watch.wake.set()

    def clear_leftovers(self) -> list[str]:
        """What an earlier run of the agent left: processes, control groups, directories. Names of those replicas."""
        left = self._inventory.content.started
        for entry in left.values():
            if entry.init_pid and start_time(entry.init_pid) == entry.init_started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(entry.init_pid, signal.SIGKILL)
        names = list(left)
        left.clear()
        self._inventory.write()
        shutil.rmtree(self.node.home / "replicas", ignore_errors=True)
        shutil.rmtree(self.node.home / "builds", ignore_errors=True)
        self.node.limits.clean()
        return names

    def in_use(self) -> tuple[set[str], set[str]]:
        """Keys of Python environments and of archives that replicas use now."""
        prepared = [replica.prepared for replica in self.replicas.values() if replica.prepared]
        return {item.venv for item in prepared if item.venv}, {key for item in prepared for key in item.archives}

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

    def _remember(self, replica: Replica) -> None:
        program = replica.program
        pid = program.init_pid if program else None
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
