"""Watches one run of a replica's program: has it started, is it ready, does it live, and where does it listen?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from easel_agent import keep_alive
from easel_agent.checks import Checks
from easel_agent.decide import listening
from easel_agent.decide.keep_alive import question, too_short_s
from easel_agent.decide.probing import ProbeState, observe, starting_period_s, startup_budget_s
from easel_agent.model import Killed, Progress, Refusal
from easel_agent.runtime import Node, Program
from easel_contracts.errors import Unavailable
from easel_contracts.spec import Probe, TcpCheck
from easel_kit.clock import Clock

if TYPE_CHECKING:
    from easel_agent.replica import Replica

READINESS = Probe(check=TcpCheck(), period_s=5.0, failure_threshold=2)
"""Without a readiness probe: the port accepts connections."""
AWAY_AGAIN_S = 0.5
EXPLAIN_AFTER_S = 2.0
"""A program that listens elsewhere gets so long to open the right port before it is called wrong."""


class Prober:
    """One for each run. Tells the replica what it finds, and has it kill a program that failed a probe for good."""

    def __init__(self, replica: Replica, program: Program, node: Node, clock: Clock, phase_s: dict[str, float], *,
                 runs_already: bool = False) -> None:  # fmt: skip
        """`runs_already`: probes need not wait for a start that was long ago."""
        self._delays = not runs_already
        self._replica, self._program, self._node, self._clock = replica, program, node, clock
        self._revision, self._phase_s = replica.spec.revision, phase_s
        self._checks = Checks(replica.ip, replica.port, self._revision.port)
        self._started = clock.monotonic()
        self.was_ready = False

    async def watch(self) -> None:
        """Until this is cancelled."""
        if not await self._until_started():
            await asyncio.Event().wait()
        phase_s = {**self._phase_s, "probe": round(self._clock.monotonic() - self._started, 3)}
        running = Progress(phase="running", pid=self._program.pid, phase_s=phase_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe_readiness(running, group))
            if self._revision.liveness is not None:
                group.create_task(self._probe_liveness(self._revision.liveness))

    async def _until_started(self) -> bool:
        """Every 50 ms until the startup probe passes; False when the program was ended for taking too long."""
        probe = self._revision.startup
        budget_s = startup_budget_s(probe, self._node.startup_limit_s)
        state = ProbeState()
        if probe is not None and probe.initial_delay_s and self._delays:
            await self._clock.sleep(probe.initial_delay_s)
        explained_at = self._started
        while True:
            began = self._clock.monotonic()
            failure = await self._ask(probe or READINESS)
            state = observe(state, probe or READINESS, failure)
            now = self._clock.monotonic()
            if state.verdict:
                return True
            if now - self._started >= budget_s:
                refusal = self._where()
                detail = refusal.message if refusal else state.detail
                self._replica.kill(Killed(reason="startup", detail=f"not passed after {budget_s:g} s: {detail}"))
                return False
            if now - explained_at >= EXPLAIN_AFTER_S:
                explained_at = now
                self._tell_silence()
            await self._clock.sleep(starting_period_s(now - self._started, now - began))

    async def _probe_readiness(self, running: Progress, group: asyncio.TaskGroup) -> None:
        probe = self._revision.readiness or READINESS
        if self._revision.readiness is not None and probe.initial_delay_s and self._delays:
            self._replica.tell(running)
            await self._clock.sleep(probe.initial_delay_s)
        state, first, began = ProbeState(), True, self._clock.monotonic()
        owned = False
        while True:
            asked = self._clock.monotonic()
            failure = await self._ask(probe)
            if failure is None and self._revision.readiness is None:
                failure = self._program.complaint()
            if failure is None and not owned:
                refusal = self._whose_port()
                owned, failure = refusal is None, refusal.message if refusal else None
            state = observe(state, probe, failure)
            self._tell_readiness(running, state, owned)
            if first and self.was_ready and not self._replica.keep_alive_known:
                group.create_task(self._check_keep_alive())
            first = first and not state.verdict
            now = self._clock.monotonic()
            await self._clock.sleep(starting_period_s(now - began, now - asked) if first else probe.period_s)

    async def _probe_liveness(self, probe: Probe) -> None:
        await self._clock.sleep(probe.initial_delay_s or probe.period_s)
        state = ProbeState()
        while True:
            state = observe(state, probe, await self._ask(probe))
            if state.verdict is False and state.failures >= probe.failure_threshold:
                detail = f"{state.failures} times in a row: {state.detail}"
                self._replica.kill(Killed(reason="liveness", detail=detail))
                return
            await self._clock.sleep(probe.period_s)

    async def _ask(self, probe: Probe) -> str | None:
        """What the probe says, as soon as it can be made: an engine that is away tells nothing of its containers."""
        while True:
            try:
                return await self._checks.run(probe, self._program)
            except Unavailable:
                await self._clock.sleep(AWAY_AGAIN_S)

    async def _check_keep_alive(self) -> None:
        """Once in a replica's life, beside everything else: nobody waits for it."""
        check = question(self._revision, self._replica.port)
        seen = await keep_alive.exchange(self._replica.ip, self._replica.port, check, self._clock)
        if not self._program.exited.done():
            self._replica.tell_keep_alive(too_short_s(seen))

    # ---- what is told

    def _tell_readiness(self, running: Progress, state: ProbeState, owned: bool) -> None:
        now = self._replica.progress
        if state.verdict and owned:
            self.was_ready = True
            self._replica.tell(msgspec.structs.replace(running, ready=True))
        elif state.verdict is False or not (now.phase == "running" and now.ready):
            refusal = None if owned else self._whose_port()
            cause = refusal.cause if refusal and refusal.cause == "wrong_port" else "probe"
            message = refusal.message if cause == "wrong_port" and refusal else f"Not ready: {state.detail}."
            message = message if state.detail else ""
            self._replica.tell(msgspec.structs.replace(running, ready=False, cause=cause, message=message))

    def _tell_silence(self) -> None:
        refusal = self._where()
        if refusal is not None:
            now, tail = self._replica.progress, self._replica.log.tail()
            self._replica.tell(msgspec.structs.replace(
                now, phase="starting", cause=refusal.cause, message=refusal.message, log_tail=tail))  # fmt: skip

    # ---- where it listens

    def _where(self) -> Refusal | None:
        sockets = self._program.listening()
        if sockets is None:
            return None
        return listening.where(self._replica.ip, self._replica.port, self._revision.port, sockets)

    def _whose_port(self) -> Refusal | None:
        """None when the replica's own process accepts at the replica's port."""
        port, sockets = self._replica.port, self._program.listening()
        if sockets is None:
            return None
        refusal = listening.where(self._replica.ip, port, self._revision.port, sockets)
        if refusal is None or any(socket.port == port for socket in sockets):
            return refusal
        return refusal if sockets else listening.taken(port)
