"""The life of one replica on this node: fetch → mount and start → probe → run → (exit → back-off → start)* → stop.

One task per replica owns its state; others only ask it to stop. Decisions are in `decide/`; this file carries them out.
It must never start a program twice at a time, nor end before the last process of the replica is gone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from easel_agent import proc
from easel_agent.checks import Checks
from easel_agent.decide import listening
from easel_agent.decide.exits import ExitFacts, explain, explain_start
from easel_agent.decide.probing import ProbeState, observe, starting_period_s, startup_budget_s
from easel_agent.decide.restarts import RestartPolicy, after_exit
from easel_agent.launching import CannotPrepare, Node, Prepared, Preparer
from easel_agent.limits import Group
from easel_agent.model import Exit, Killed, Listening, Progress, Refusal, Stopping
from easel_agent.processes import Launched, StartFailed
from easel_agent.replica_log import ReplicaLog
from easel_contracts.errors import EaselError, Unavailable
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import Probe, RunSpec, TcpCheck
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("replica")

READINESS = Probe(check=TcpCheck(), period_s=5.0, failure_threshold=2)
"""Without a readiness probe: the port accepts connections."""
EXPLAIN_AFTER_S = 2.0
"""A program that listens elsewhere gets so long to open the right port before it is called wrong."""


class Replica:
    """One replica. `changed` is called with each new report."""

    def __init__(self, run: RunSpec, node: Node, preparer: Preparer, clock: Clock, log: ReplicaLog,
                 changed: Callable[[Replica], None], policy: RestartPolicy) -> None:  # fmt: skip
        self.spec, self._node, self._preparer, self._clock = run, node, preparer, clock
        self.log, self._changed, self._policy = log, changed, policy
        self._sequence = 0
        self._progress = Progress(phase="fetching")
        self._stop: Stopping | None = None
        self._stop_asked = asyncio.Event()
        self._killed: Killed | None = None
        self._oom_before = 0
        self._failures = 0
        self._was_ready = False
        self.port = 0
        self.uid: int | None = None
        self.program: Launched | None = None
        self.group: Group | None = None
        self.prepared: Prepared | None = None
        self.report = self._make_report()

    @property
    def start_failed(self) -> bool:
        """Whether its newest run has ended, or could not begin, without having been ready."""
        return self.report.phase in ("failed", "backoff") and not self._was_ready

    def stop(self, stopping: Stopping) -> None:
        """Ask for the end. A later call may only make it come sooner."""
        if self._stop is None or stopping.grace_s < self._stop.grace_s or stopping.idle:
            self._stop = stopping
            self._stop_asked.set()

    def kill_for_memory(self, used_mib: float) -> None:
        """The watcher found the replica above its limit."""
        self._kill(Killed(reason="memory", detail=f"{used_mib:.0f} MiB"))

    async def live(self) -> None:
        """The whole life; returns when nothing of the replica is left on the node."""
        life = asyncio.create_task(self._run())
        asked = asyncio.create_task(self._stop_asked.wait())
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
        if progress != self._progress:
            self._progress = progress
            self._sequence += 1
            self.report = self._make_report()
            self._changed(self)

    # ---- steps of the life

    async def _run(self) -> None:
        try:
            self.tell(Progress(phase="fetching"))
            began = self._clock.monotonic()
            self.prepared = await self._prepare()
            phase_s = {"fetch": round(self._clock.monotonic() - began, 3)}
            restarts = 0
            while True:
                delay_s = await self._run_once(restarts, phase_s)
                await self._clock.sleep(delay_s)
                restarts += 1
                self._forget_group()
                self.log.next_run()
        except CannotPrepare as error:
            self.log.event(error.refusal.message)
            self.tell(Progress(phase="failed", cause=error.refusal.cause, message=error.refusal.message,
                               log_tail=self.log.tail(), phase_s=self._progress.phase_s,
                               restarts=self._progress.restarts))  # fmt: skip
        except EaselError as error:
            self._tell_fault(str(error))
        except Exception as error:  # a full disk, a control group that cannot be made, a fault of ours
            log.error("replica cannot run", replica=self.spec.replica, error=repr(error), exc_info=error)
            self._tell_fault(f"The agent could not run the replica: {error}")

    async def _prepare(self) -> Prepared:
        """Also over an outage of control: waiting costs time, giving up would cost the replica."""
        for attempt in itertools.count():
            try:
                return await self._preparer.prepare(self)
            except Unavailable as error:
                self.tell(Progress(phase="fetching", message=f"Waiting for Easel's control process: {error.message}."))
                await self._clock.sleep(min(10.0, 0.5 * 2 ** min(attempt, 10)))
        raise AssertionError("unreachable")

    async def _run_once(self, restarts: int, phase_s: dict[str, float]) -> float:
        """One run of the program, to its end; how long to wait before the next."""
        assert self.prepared is not None
        self._killed, self._was_ready = None, False
        self.group = self._node.limits.group(
            self.spec.replica, memory_mib=self.spec.revision.resources.memory_mib,
            cpu=self.spec.revision.resources.cpu, processes=self._node.processes_per_replica,
        )  # fmt: skip
        self._oom_before = self.group.kills()
        before = self._progress
        # Not told yet: a start is told once, with the program's pid.
        self._progress = Progress(
            phase="starting", restarts=restarts, phase_s=phase_s, cause=before.cause, message=before.message,
            log_tail=before.log_tail, exit_code=before.exit_code,
        )  # fmt: skip
        began = self._clock.monotonic()
        program = await self._start(self.prepared)
        started = self._clock.monotonic()
        phase_s = {**phase_s, "mount": program.mount_s, "start": round(started - began - program.mount_s, 3)}
        self.tell(Progress(phase="starting", pid=program.pid, restarts=restarts, phase_s=phase_s, cause=before.cause,
                           message=before.message, log_tail=before.log_tail, exit_code=before.exit_code))  # fmt: skip
        watch = asyncio.create_task(self._watch(program, started, restarts, phase_s))
        try:
            waiting: list[asyncio.Future[Any]] = [watch, program.exited]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if watch.done() and not program.exited.done():
                watch.result()  # a fault of ours, raised here
            code = await program.exited
        finally:
            watch.cancel()
            await self._finish_program()
        exit_ = Exit(code=code, ran_s=self._clock.monotonic() - started, was_ready=self._was_ready)
        return self._tell_exit(exit_, restarts)

    async def _start(self, prepared: Prepared) -> Launched:
        assert self.group is not None
        program = Launched(self._node.children, self.group.add, self.log.event)
        self.program = program
        out, err = self.log.attach("O"), self.log.attach("E")
        try:
            program.launch(prepared.plan, out, err)
        finally:
            os.close(out)
            os.close(err)
        try:
            await program.started
        except StartFailed as error:
            await self._finish_program()
            refusal = explain_start(error.stage, error.errno, error.text, prepared.plan.argv)
            raise CannotPrepare(refusal) from error
        self._node.started(self)
        return program

    async def _watch(self, program: Launched, started: float, restarts: int, phase_s: dict[str, float]) -> None:
        """Probe until the program ends (the caller cancels this)."""
        checks = Checks(self._node.address, self.port, self.spec.revision.port)
        if not await self._until_started(program, checks, started):
            await asyncio.Event().wait()
        phase_s = {**phase_s, "probe": round(self._clock.monotonic() - started, 3)}
        running = Progress(phase="running", pid=program.pid, restarts=restarts, phase_s=phase_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe_readiness(program, checks, running))
            if self.spec.revision.liveness is not None:
                group.create_task(self._probe_liveness(program, checks, self.spec.revision.liveness))

    async def _until_started(self, program: Launched, checks: Checks, started: float) -> bool:
        """Every 50 ms until the startup probe passes; False when the program was ended for taking too long."""
        probe = self.spec.revision.startup
        budget_s = startup_budget_s(probe, self._node.startup_limit_s)
        state = ProbeState()
        if probe is not None and probe.initial_delay_s:
            await self._clock.sleep(probe.initial_delay_s)
        explained_at = started
        while True:
            began = self._clock.monotonic()
            failure = await checks.run(probe or READINESS, program)
            state = observe(state, probe or READINESS, failure)
            now = self._clock.monotonic()
            if state.verdict:
                return True
            if now - started >= budget_s:
                detail = self._explain_silence(program) or state.detail
                self._kill(Killed(reason="startup", detail=f"not passed after {budget_s:g} s: {detail}"))
                return False
            if now - explained_at >= EXPLAIN_AFTER_S:
                explained_at = now
                self._tell_silence(program)
            await self._clock.sleep(starting_period_s(now - started, now - began))

    async def _probe_readiness(self, program: Launched, checks: Checks, running: Progress) -> None:
        probe = self.spec.revision.readiness or READINESS
        if self.spec.revision.readiness is not None and probe.initial_delay_s:
            self.tell(running)
            await self._clock.sleep(probe.initial_delay_s)
        state, first, began = ProbeState(), True, self._clock.monotonic()
        owned = False
        while True:
            asked = self._clock.monotonic()
            failure = await checks.run(probe, program)
            if failure is None and not owned:
                refusal = self._whose_port(program)
                owned, failure = refusal is None, refusal.message if refusal else None
            state = observe(state, probe, failure)
            self._tell_readiness(program, running, state, owned)
            first = first and not state.verdict
            now = self._clock.monotonic()
            await self._clock.sleep(starting_period_s(now - began, now - asked) if first else probe.period_s)

    async def _probe_liveness(self, program: Launched, checks: Checks, probe: Probe) -> None:
        await self._clock.sleep(probe.initial_delay_s or probe.period_s)
        state = ProbeState()
        while True:
            state = observe(state, probe, await checks.run(probe, program))
            if state.verdict is False and state.failures >= probe.failure_threshold:
                self._kill(Killed(reason="liveness", detail=f"{state.failures} times in a row: {state.detail}"))
                return
            await self._clock.sleep(probe.period_s)

    # ---- what is told

    def _tell_readiness(self, program: Launched, running: Progress, state: ProbeState, owned: bool) -> None:
        was_ready = self._progress.phase == "running" and self._progress.ready
        if state.verdict and owned:
            self._was_ready = True
            self.tell(_with(running, ready=True))
        elif state.verdict is False or not was_ready:
            refusal = None if owned else self._whose_port(program)
            cause = refusal.cause if refusal and refusal.cause == "wrong_port" else "probe"
            message = refusal.message if cause == "wrong_port" and refusal else f"Not ready: {state.detail}."
            self.tell(_with(running, ready=False, cause=cause, message=message if state.detail else ""))

    def _tell_fault(self, message: str) -> None:
        self.log.event(message)
        self.tell(Progress(phase="failed", cause="internal", message=message, log_tail=self.log.tail(),
                           restarts=self._progress.restarts))  # fmt: skip

    def _tell_silence(self, program: Launched) -> None:
        refusal = listening.where(self._node.address, self.port, self.spec.revision.port, self._sockets(program))
        if refusal is not None:
            now = self._progress
            self.tell(Progress(phase="starting", pid=now.pid, restarts=now.restarts, phase_s=now.phase_s,
                               exit_code=now.exit_code, cause=refusal.cause, message=refusal.message,
                               log_tail=self.log.tail()))  # fmt: skip

    def _explain_silence(self, program: Launched) -> str:
        refusal = listening.where(self._node.address, self.port, self.spec.revision.port, self._sockets(program))
        return refusal.message if refusal else ""

    def _whose_port(self, program: Launched) -> Refusal | None:
        """None when the replica's own process accepts at the replica's port."""
        sockets = self._sockets(program)
        refusal = listening.where(self._node.address, self.port, self.spec.revision.port, sockets)
        if refusal is None or any(socket.port == self.port for socket in sockets):
            return refusal
        return refusal if sockets else listening.taken(self.port)

    def _sockets(self, program: Launched) -> list[Listening]:
        assert program.init_pid is not None
        return proc.listening(proc.below(program.init_pid))

    def _tell_exit(self, exit_: Exit, restarts: int) -> float:
        assert self.group is not None
        out_of_memory = self.group.kills() > self._oom_before and exit_.code != 0
        restart = after_exit(exit_, self._failures, self._policy)
        self._failures = restart.failures_in_row
        facts = ExitFacts(
            exit=exit_, limit_mib=self.spec.revision.resources.memory_mib, killed=self._killed,
            out_of_memory=out_of_memory, peak_mib=self.group.peak_mib(), failures_in_row=restart.failures_in_row,
            crash_loop=restart.crash_loop, delay_s=restart.delay_s,
        )  # fmt: skip
        refusal = explain(facts)
        tail = self.log.tail()
        if self._stop is not None:
            return restart.delay_s
        self.log.event(refusal.message)
        self.tell(Progress(phase="backoff", restarts=restarts, exit_code=exit_.code, cause=refusal.cause,
                           message=refusal.message, log_tail=tail, phase_s=self._progress.phase_s))  # fmt: skip
        return restart.delay_s

    def _make_report(self) -> ReplicaReport:
        now, node = self._progress, self._node
        return ReplicaReport(
            replica=self.spec.replica, service=self.spec.service, revision=self.spec.revision.number,
            sequence=self._sequence, agent_run_id=node.run_id, phase=now.phase, ready=now.ready, pid=now.pid,
            ip=node.address, port=self.port, network=node.network, restarts=now.restarts, exit_code=now.exit_code,
            cause=now.cause, message=now.message, log_tail=now.log_tail, phase_s=now.phase_s,
            at_unix_s=self._clock.now().timestamp(), isolation=node.isolation, limits=node.limits.sentence,
        )  # fmt: skip

    # ---- the end

    def _kill(self, killed: Killed) -> None:
        if self.program is not None and self._killed is None:
            self._killed = killed
            self.program.kill()

    async def _finish_program(self) -> None:
        """Nothing of the program is left when this returns."""
        if self.program is not None:
            self.program.kill()
            await asyncio.shield(self.program.gone)
            self.program = None
        self.log.drain()

    async def _end(self) -> None:
        """SIGTERM if wanted, then SIGKILL at the end of the grace period, or at once when nothing is in flight."""
        program = self.program
        now = self._progress
        self.tell(Progress(phase="stopping", pid=now.pid, restarts=now.restarts, phase_s=now.phase_s))
        if program is None or not program.started.done() or program.started.exception():
            return
        began = self._clock.monotonic()
        signalled = False
        while not program.exited.done():
            assert self._stop is not None
            if self._stop.sigterm and not signalled:
                signalled = True
                program.send_signal(signal.SIGTERM)
            left_s = 0.0 if self._stop.idle and not self._stop.sigterm else self._stop.grace_s
            left_s -= self._clock.monotonic() - began
            if left_s <= 0:
                return
            self._stop_asked.clear()
            sooner = asyncio.create_task(self._stop_asked.wait())
            pause = asyncio.create_task(self._clock.sleep(left_s))
            waiting: list[asyncio.Future[Any]] = [program.exited, sooner, pause]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            sooner.cancel()
            pause.cancel()

    def _forget_group(self) -> None:
        if self.group is not None:
            self.group.remove()
            self.group = None

    async def _clean(self) -> None:
        await self._finish_program()
        self._forget_group()
        self._preparer.release(self)
        self.log.event("stopped")
        self.log.close()
        await asyncio.to_thread(shutil.rmtree, self.directory, True)
        now = self._progress
        self.tell(Progress(phase="stopped", restarts=now.restarts, phase_s=now.phase_s, exit_code=now.exit_code))

    @property
    def directory(self) -> Path:
        """What the replica may write to; removed with it."""
        return self._node.home / "replicas" / self.spec.replica


def _with(base: Progress, **changes: object) -> Progress:
    values = {name: getattr(base, name) for name in Progress.__struct_fields__} | changes
    return Progress(**values)
