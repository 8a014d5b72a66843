"""The life of one replica on this node: fetch → mount and start → probe → run → (exit → back-off → start)* → stop.

One task per replica owns its state; others only ask it to stop, or to start its program anew. Decisions are in
`decide/`; this file carries them out, `prober.py` watches each run, `ending.py` ends it.
It must never start a program twice at a time, nor end before the last process of the replica is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from easel_agent.decide.exits import ExitFacts, explain
from easel_agent.decide.restarts import RestartPolicy, after_exit
from easel_agent.ending import end
from easel_agent.limits import Group
from easel_agent.model import Exit, Killed, Progress
from easel_agent.orders import Orders
from easel_agent.prober import Prober
from easel_agent.replica_log import ReplicaLog
from easel_agent.runtime import CannotPrepare, Node, Prepared, Program, Runtime, Uses
from easel_contracts.errors import EaselError, Unavailable
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import RunSpec
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("replica")
T = TypeVar("T")


class Replica:
    """One replica. `changed` is called with each new report."""

    def __init__(self, run: RunSpec, node: Node, runtime: Runtime, clock: Clock, log: ReplicaLog,
                 changed: Callable[[Replica], None], policy: RestartPolicy, *,
                 adopted: bool = False) -> None:  # fmt: skip
        """`adopted`: its program runs already, and is put into `program` before `live` begins."""
        self.spec, self._node, self._runtime, self._clock = run, node, runtime, clock
        self.adopted = adopted
        self.log, self._changed, self._policy = log, changed, policy
        self.orders = Orders()
        self._sequence = 0
        self.progress = Progress(phase="starting" if adopted else "fetching")
        self._restart_number = 0
        """Of the newest restart that the running program was started after."""
        self._restarts = 0
        """How often a program that ended by itself was followed by another."""
        self._failures = 0
        self._killed: Killed | None = None
        self.kills_before = 0
        """Of `group`, when the present run began."""
        self._keep_alive_s: float | None = None
        self.keep_alive_known = False
        self.ip, self.port = "", 0
        self.uid: int | None = None
        self.program: Program | None = None
        self.group: Group | None = None
        self.prepared: Prepared | None = None
        self.uses = Uses()
        self.pins = dict(run.pins) if adopted else {}
        """What its sources are, once they are fetched."""
        self._prober: Prober | None = None
        self._watching: asyncio.Task[None] | None = None
        self.report = self._make_report()

    @property
    def start_failed(self) -> bool:
        """Whether its newest run has ended, or could not begin, without having been ready."""
        was_ready = self._prober is not None and self._prober.was_ready
        return self.report.phase in ("failed", "backoff") and not was_ready

    @property
    def directory(self) -> Path:
        """What the replica may write to; removed with it."""
        return self._node.home / "replicas" / self.spec.replica

    def kill_for_memory(self, used_mib: float) -> None:
        """The watcher found the replica above its limit."""
        self.kill(Killed(reason="memory", detail=f"{used_mib:.0f} MiB"))

    def kill(self, killed: Killed) -> None:
        """End the present run, which has failed a limit or a probe."""
        if self.program is not None and self._killed is None:
            self._killed = killed
            self.program.kill()

    async def live(self) -> None:
        """The whole life; returns when nothing of the replica is left on the node."""
        life = asyncio.create_task(self._run())
        asked = asyncio.create_task(self.orders.stop_asked.wait())
        try:
            await asyncio.wait([life, asked], return_when=asyncio.FIRST_COMPLETED)
            await asked  # when it failed for good, what is known stays to be read until we are told to forget
            await self._end()
        finally:
            asked.cancel()
            life.cancel()
            await asyncio.wait([life])
            await self._clean()

    def tell(self, progress: Progress) -> None:
        """A new state, if it is one."""
        if progress != self.progress:
            self.progress = progress
            self._tell()

    def note(self, text: str) -> None:
        """What it is being prepared with: in its log, and in its report."""
        self.log.event(text)
        self.tell(msgspec.structs.replace(self.progress, message=text))

    def tell_keep_alive(self, keep_alive_s: float | None) -> None:
        """How long its server keeps an idle connection; None: long enough, or not to be found out."""
        self.keep_alive_known = True
        if keep_alive_s != self._keep_alive_s:
            self._keep_alive_s = keep_alive_s
            self._tell()

    # ---- steps of the life

    async def _run(self) -> None:
        try:
            phase_s: dict[str, float] = {}
            while True:
                if self.prepared is None and self.program is None:
                    self.tell(Progress(phase="fetching", phase_s=phase_s))
                    began = self._clock.monotonic()
                    self.prepared = await self._insisting(lambda: self._runtime.prepare(self))
                    self.uses = self.prepared.uses
                    phase_s = {"fetch": round(self._clock.monotonic() - began, 3)}
                await self._run_once(phase_s)
                self._forget_group()
                self.log.next_run()
        except CannotPrepare as error:
            self.log.event(error.refusal.message)
            self.tell(Progress(phase="failed", cause=error.refusal.cause, message=error.refusal.message,
                               log_tail=self.log.tail(), phase_s=self.progress.phase_s))  # fmt: skip
        except EaselError as error:
            self._tell_fault(str(error))
        except Exception as error:  # a full disk, a control group that cannot be made, a fault of ours
            log.error("replica cannot run", replica=self.spec.replica, error=repr(error), exc_info=error)
            self._tell_fault(f"The agent could not run the replica: {error}")

    async def _insisting(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Also over an outage of control or of an engine: waiting costs time, giving up would cost the replica."""
        before = self.progress.message
        for number in itertools.count():
            try:
                found = await attempt()
                self.progress = msgspec.structs.replace(self.progress, message=before)
                return found
            except Unavailable as error:
                self.tell(msgspec.structs.replace(self.progress, message=f"Waiting: {error.message}."))
                await self._clock.sleep(min(10.0, 0.5 * 2 ** min(number, 10)))
        raise AssertionError("unreachable")

    async def _run_once(self, phase_s: dict[str, float]) -> None:
        """One run of the program, and the back-off after it; returns when it is time for the next."""
        number = self.orders.restarting.number  # one asked for from here on is for the program that is being started
        began = self._clock.monotonic()
        # Not told yet: a start is told once, with the program's pid.
        self.progress = msgspec.structs.replace(self.progress, phase="starting", ready=False, pid=None, phase_s=phase_s)
        runs_already = self.program is not None
        program = self.program or await self._start()
        await self.orders.leave_to_stop()
        started = self._clock.monotonic()
        phase_s = {**phase_s, "mount": program.mount_s, "start": round(started - began - program.mount_s, 3)}
        self._restart_number = number
        self.tell(msgspec.structs.replace(self.progress, pid=program.pid, phase_s=phase_s))
        self._prober = prober = Prober(self, program, self._node, self._clock, phase_s, runs_already=runs_already)
        self._watching = asyncio.create_task(prober.watch())
        try:
            await self._until_over(program, self._watching, number)
        finally:
            self._watching.cancel()
            await self._finish_program()
        if self.orders.restarting.number > number:
            self._failures = 0  # somebody looked after it: a new row, and no back-off
            return
        if (refusal := program.refusal()) is not None:
            raise CannotPrepare(refusal)
        exit_ = Exit(code=program.exited.result(), ran_s=self._clock.monotonic() - started, was_ready=prober.was_ready)
        await self._back_off(self._tell_exit(exit_), number)

    async def _until_over(self, program: Program, watching: asyncio.Task[None], number: int) -> None:
        """Until the program has ended by itself, or as a restart wants it. A stop wins: `live` carries that out."""
        asked = asyncio.create_task(self.orders.restart_above(number))
        waiting: list[asyncio.Future[Any]] = [watching, program.exited, asked]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        if watching.done() and not watching.cancelled() and not program.exited.done():
            watching.result()  # a fault of ours, raised here
        if asked.done() and not program.exited.done() and self.orders.stopping is None:
            watching.cancel()
            text = f"Its process is being started anew, as asked (restart {self.orders.restarting.number})."
            self.log.event(text)
            self.tell(Progress(phase="starting", pid=program.pid, message=text, phase_s=self.progress.phase_s))
            await end(program, self.orders.how_to_restart, self.orders.restart_asked, self._clock)
        await self.orders.leave_to_stop()

    async def _start(self) -> Program:
        self._killed = self._prober = None
        prepared = self.prepared
        assert prepared is not None
        try:
            return await self._insisting(lambda: self._runtime.start(self, prepared))
        except CannotPrepare:
            await self._finish_program()
            raise

    async def _back_off(self, delay_s: float, number: int) -> None:
        """Until the delay is over, or a restart is asked for."""
        asked = asyncio.create_task(self.orders.restart_above(number))
        pause = asyncio.create_task(self._clock.sleep(delay_s))
        try:
            await asyncio.wait([asked, pause], return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            pause.cancel()
        self._restarts += 1
        if self.orders.restarting.number > number:
            self._failures = 0

    # ---- what is told

    def _tell_fault(self, message: str) -> None:
        self.log.event(message)
        self.tell(Progress(phase="failed", cause="internal", message=message, log_tail=self.log.tail()))

    def _tell_exit(self, exit_: Exit) -> float:
        """Says why the program ended; how long to wait before the next start."""
        assert self.group is not None
        out_of_memory = self.group.kills() > self.kills_before and exit_.code != 0
        restart = after_exit(exit_, self._failures, self._policy)
        self._failures = restart.failures_in_row
        facts = ExitFacts(
            exit=exit_, limit_mib=self.spec.revision.resources.memory_mib, killed=self._killed,
            out_of_memory=out_of_memory, peak_mib=self.group.peak_mib(), failures_in_row=restart.failures_in_row,
            crash_loop=restart.crash_loop, delay_s=restart.delay_s,
        )  # fmt: skip
        refusal = explain(facts)
        tail = self.log.tail()
        self.log.event(refusal.message)
        self.tell(Progress(phase="backoff", exit_code=exit_.code, cause=refusal.cause, message=refusal.message,
                           log_tail=tail, phase_s=self.progress.phase_s))  # fmt: skip
        return restart.delay_s

    def _tell(self) -> None:
        self._sequence += 1
        self.report = self._make_report()
        self._changed(self)

    def _make_report(self) -> ReplicaReport:
        now, node = self.progress, self._node
        return ReplicaReport(
            replica=self.spec.replica, service=self.spec.service, revision=self.spec.revision.number,
            sequence=self._sequence, agent_run_id=node.run_id, phase=now.phase, ready=now.ready, pid=now.pid,
            ip=self.ip, port=self.port, network=node.network, restarts=self._restarts, exit_code=now.exit_code,
            cause=now.cause, message=now.message, log_tail=now.log_tail, phase_s=now.phase_s,
            keep_alive_s=self._keep_alive_s, restart_number=self._restart_number,
            at_unix_s=self._clock.now().timestamp(), isolation=self._runtime.isolation,
            limits=self._runtime.limits, runtime=self.spec.revision.runtime, pins=self.pins,
            container=self.program.container if self.program else "", adopted=self.adopted,
        )  # fmt: skip

    # ---- the end

    async def _finish_program(self) -> None:
        """Nothing of the program is left when this returns."""
        if self.program is not None:
            self.program.kill()
            await asyncio.shield(self.program.gone)
            self.program = None
        self.log.drain()

    async def _end(self) -> None:
        """SIGTERM if wanted, then SIGKILL at the end of the grace period, or at once when nothing is in flight."""
        if self._watching is not None:  # nothing it could find out counts any more
            self._watching.cancel()
        program, now = self.program, self.progress
        self.tell(Progress(phase="stopping", pid=now.pid, phase_s=now.phase_s))
        if program is not None and program.started.done() and not program.started.exception():
            await end(program, self.orders.how_to_stop, self.orders.stop_asked, self._clock)

    def _forget_group(self) -> None:
        if self.group is not None:
            self.group.remove()
            self.group = None

    async def _clean(self) -> None:
        await self._finish_program()
        self._forget_group()
        await self._runtime.release(self)
        self.log.event("stopped")
        self.log.close()
        await asyncio.to_thread(shutil.rmtree, self.directory, True)
        now = self.progress
        self.tell(Progress(phase="stopped", phase_s=now.phase_s, exit_code=now.exit_code))
