"""One process under the supervisor: started with a parent-death signal, restarted with back-off, stopped with grace.

Decides nothing about order. Never signals a pid that is not a child it started and has not reaped.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from easel_standalone.decide import restart
from easel_standalone.logs import LogFile
from easel_standalone.stores.postgres import SHIM

State = Literal["stopped", "starting", "running", "not ready", "backing off", "failed", "finishing"]
"""running: up, and it says that it is ready. not ready: it was, and is not now. finishing: another took its place."""


class Plan(Struct, frozen=True, kw_only=True):
    """What to run and how to tell that it works."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Path
    is_ready: Callable[[], Awaitable[bool | str]]
    """True, or why not yet (False: no reason known)."""
    stop_signal: int = signal.SIGTERM
    stop_grace_s: float = 15.0
    death_signal: int = signal.SIGKILL
    """Sent by the kernel when the supervisor dies. SIGKILL for all that may be killed at any time: nothing can hang."""
    shim_options: list[str] = []
    again: Callable[[], Plan] | None = None
    """Makes the plan of the next life, where that is not this one."""
    killed_when_hung: bool = False
    """Whether one that does not answer is killed: not where that costs users' requests, replicas or state."""


class Child:
    """A process that is kept running until it is told to stop."""

    def __init__(self, plan: Plan, on_start: Callable[[], None] | None = None) -> None:
        self.plan = plan
        self._on_start = on_start
        self.log = LogFile(plan.log)
        self.restarts = 0
        self.state: State = "stopped"
        self.why_not_ready = ""
        self.last_exit: str = ""
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._stopping = asyncio.Event()
        self._is_last = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def up_s(self) -> float:
        """Seconds since the last start; 0 while not running."""
        return time.monotonic() - self._started_at if self.pid else 0.0

    def start(self) -> None:
        """Begins to keep the process running."""
        self._stopping.clear()
        self.state = "starting"
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.plan.name}")

    async def run_once(self) -> int:
        """Runs a process that is meant to end, and returns its exit code."""
        self.state = "starting"
        code = await self._run()
        self.state = "stopped" if code == 0 else "failed"
        return code

    async def check(self) -> bool:
        """Asks whether it is ready, and remembers the answer."""
        if self.pid is None or self._is_last:
            return False
        answer = await self.plan.is_ready()
        if self.pid is None or self._is_last:
            return False
        self.why_not_ready = answer if isinstance(answer, str) else ""
        if answer is True:
            self.state = "running"
        elif self.state == "running":
            self.state = "not ready"
        return answer is True

    def retire(self) -> None:
        """Lets the process finish what it has: once it has ended it is not started again."""
        self._is_last = True
        self.state = "finishing"

    async def wait_end(self, longest_s: float) -> bool:
        """Whether the process of a retired or stopped child has ended, at the latest after so many seconds."""
        if self._keeper is not None:
            await asyncio.wait([self._keeper], timeout=longest_s)
        return self._keeper is None or self._keeper.done()

    async def stop(self) -> None:
        """Asks it to end, waits for its grace, then kills its process group."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(self.plan.stop_signal)
            try:
                async with asyncio.timeout(self.plan.stop_grace_s):
                    await process.wait()
            except TimeoutError:
                self.kill()
        if self._keeper is not None:
            await self._keeper
        self.state = "stopped"

    def restart(self) -> None:
        """Asks the process to end; it is started again at once."""
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(self.plan.stop_signal)

    def kill(self) -> None:
        """Kills the process and its group at once; it is started again unless it is being stopped."""
        if pid := self.pid:
            # The group is ours: start_new_session made the child its leader, and it is not reaped yet.
            os.killpg(pid, signal.SIGKILL)

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping.is_set() and not self._is_last:
            try:
                if failures and self.plan.again is not None:
                    self.plan = self.plan.again()
                await self._run()
            except OSError as error:  # no memory or no process slot: the same as a process that ends at once
                self.last_exit = f"could not be started: {error}"
            if self._stopping.is_set() or self._is_last:
                break
            failures = restart.failures_after(failures, time.monotonic() - self._started_at)
            self.restarts += 1
            self.state = "backing off"
            await self._wait(restart.delay_s(failures))
        self.state = "stopped"

    async def _wait(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(longest_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _run(self) -> int:
        """One life of the process. Forks from the loop's thread: the death signal is tied to the thread."""
        plan = self.plan
        self._started_at = time.monotonic()
        self.log.begin()
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(SHIM), *plan.shim_options,
            "--parent", str(os.getpid()), "--death-signal", str(int(plan.death_signal)), "--", *plan.command,
            env=plan.env, cwd="/", start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self.state = "starting"
        if self._on_start:
            self._on_start()
        if self._stopping.is_set():
            # Told to stop while the fork was under way.
            process.send_signal(plan.stop_signal)
        assert process.stdout is not None
        reader = asyncio.create_task(self.log.take(process.stdout))
        code = await process.wait()
        self.last_exit = _said(code)
        _, pending = await asyncio.wait([reader], timeout=1.0)
        for task in pending:
            # Something it left behind holds the pipe open.
            task.cancel()
        return code


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
