"""The parent of the platform's processes: starts them in order, keeps them running, stops them in order.

Decides order and when the platform is ready. All children are forked from the loop's thread (the death signal is tied
to it). Never acts on services or replicas: a control process may die and come back while requests flow.

Order: NATS and PostgreSQL → migrate → all others at once → a request through every gateway.
Stop:  those that would repair → gateways, router and agent (with its replicas' grace) → the stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager

from easel_contracts.errors import Conflict, Refused, Unavailable
from easel_standalone import control_socket, leftovers, probes
from easel_standalone.child import Child, Plan
from easel_standalone.control_socket import Phase, ProcessStatus, Status
from easel_standalone.gateway import Gateway, MakePlan, Replaced
from easel_standalone.home import Config, Home

DISK_LOW_MIB = 1024
"""Below this the platform says so; the stores keep that much free for the rest of the disk."""
SPACE_AGAIN_MIB = 16
NO_SPACE = "no space left on device"
"""What nats-server says of a write that the disk refused."""
CHECK_S = 5.0
LIVE_TIMEOUT_S = 10.0
LIVE_MISSES = 6
"""Unanswered /live checks in a row after which a process is taken for hung."""
GIVE_UP_FAILURES = 4
"""Ends of a process before it was ever ready, after which `up` fails."""


Say = Callable[[str], None]


class Supervisor:
    """One platform's processes."""

    def __init__(self, home: Home, config: Config, say: Say, start_timeout_s: float = 60.0) -> None:
        self._home, self._config, self._say, self._start_timeout_s = home, config, say, start_timeout_s
        self._own: dict[str, Child] = {}
        self.gateways: list[Gateway] = []
        self.phase: Phase = "starting"
        self.message = ""
        self.stop_asked = asyncio.Event()
        self.stopped = asyncio.Event()
        self._misses: dict[str, int] = {}
        self.began = time.monotonic()

    # Starting

    def add(self, plan: Plan) -> Child:
        """Starts a process and keeps it running."""
        child = self._own[plan.name] = Child(plan, on_start=self._remember)
        child.start()
        return child

    def add_gateway(self, name: str, make_plan: MakePlan) -> Gateway:
        """Starts a gateway and keeps it running."""
        gateway = Gateway(self._home, self._config, name, make_plan, self._remember, self._say)
        self.gateways.append(gateway)
        gateway.start()
        return gateway

    @property
    def children(self) -> dict[str, Child]:
        """All processes by name, those of the gateways included."""
        return self._own | {name: child for gateway in self.gateways for name, child in gateway.children.items()}

    async def run_once(self, plan: Plan) -> None:
        """Runs a step that must end well; raises Unavailable with its last lines where it does not."""
        child = Child(plan)
        step = asyncio.create_task(child.run_once())
        stop = asyncio.create_task(self.stop_asked.wait())
        await asyncio.wait([step, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not step.done():
            await child.stop()
            await step
            raise Refused("STOPPED", f"{plan.name} was stopped before it ended")
        if step.result() != 0:
            raise Unavailable(
                "STEP_FAILED", f"{plan.name} ended with {child.last_exit}:\n{_quoted(child)}", f"see {plan.log}"
            )
        self._say(f"{plan.name} done")

    async def wait_ready(self, children: Iterable[Child]) -> None:
        """Returns when all are ready; raises Unavailable, naming who is not and why, or Refused on a stop."""
        waiting = list(children)
        while waiting:
            if self.stop_asked.is_set():
                raise Refused("STOPPED", "stopped before the platform was ready")
            answers = await asyncio.gather(*(child.check() for child in waiting))
            for child, ready in zip(list(waiting), answers, strict=True):
                if ready:
                    waiting.remove(child)
                    self._say(f"{child.plan.name} ready")
                elif child.restarts >= GIVE_UP_FAILURES:
                    raise self._not_ready([child], f"{child.plan.name} ends as soon as it is started")
            if waiting and time.monotonic() - self.began > self._start_timeout_s:
                raise self._not_ready(waiting, f"not ready after {self._start_timeout_s:g} s")
            if waiting:
                await self._pause(0.05)

    async def wait_until(self, question: Callable[[], Awaitable[bool | str]], what: str) -> None:
        """Polls an async question until it answers True; raises Unavailable with its last answer."""
        while (answer := await question()) is not True:
            if self.stop_asked.is_set():
                raise Refused("STOPPED", "stopped before the platform was ready")
            if time.monotonic() - self.began > self._start_timeout_s:
                raise Unavailable("NOT_READY", f"{what}: {answer}", f"see {self._home.logs}")
            await self._pause(0.05)

    def _not_ready(self, waiting: list[Child], what: str) -> Unavailable:
        lines = [f"{c.plan.name}: {c.why_not_ready or c.last_exit or c.state}\n{_quoted(c)}" for c in waiting]
        return Unavailable("NOT_READY", f"{what}: " + "\n".join(lines), f"see {self._home.logs}; try `easel doctor`")

    # Running

    async def keep(self) -> None:
        """Watches until told to stop."""
        while not self.stop_asked.is_set():
            await self._pause(CHECK_S)
            if self.stop_asked.is_set():
                return
            await asyncio.gather(*(child.check() for child in self.children.values()))
            await self._kill_hung()
            self._free_the_bus()
            serving = self._own | {g.name: g.current for g in self.gateways if not g.is_being_replaced}
            unwell = [name for name, child in serving.items() if child.state != "running"]
            disk = self._disk_free_mib()
            troubles = ([f"not ready: {', '.join(unwell)}"] if unwell else []) + (
                [f"disk almost full: {disk} MiB left; new work is refused, services keep running"]
                if disk < DISK_LOW_MIB
                else []
            )
            self._tell("degraded" if troubles else "ready", "; ".join(troubles))

    def _tell(self, phase: Phase, message: str) -> None:
        if (phase, message) != (self.phase, self.message):
            self.phase, self.message = phase, message
            self._say(f"{phase}{': ' + message if message else ''}")

    async def _kill_hung(self) -> None:
        for name, child in self.children.items():
            if not child.plan.killed_when_hung or child.pid is None or child.up_s < LIVE_TIMEOUT_S:
                self._misses[name] = 0
                continue
            answer = await probes.get(self._home.socket(f"{name}.health"), "/live", timeout_s=LIVE_TIMEOUT_S)
            self._misses[name] = 0 if answer.status == 200 else self._misses.get(name, 0) + 1
            if self._misses[name] >= LIVE_MISSES:
                self._say(f"{name} has not answered for {LIVE_MISSES} checks ({answer.body}); it is started again")
                self._misses[name] = 0
                child.kill()

    def _free_the_bus(self) -> None:
        """Restarts nats-server once there is space again: after a full disk a stream refuses to write until then."""
        bus = self._own.get("nats")
        if bus is None or self._disk_free_mib() < SPACE_AGAIN_MIB:
            return
        if any(NO_SPACE in line for line in bus.log.last_lines()):
            self._say("nats met a full disk; there is space again, so it is started again")
            bus.log.begin()
            bus.restart()

    def _remember(self) -> None:
        running = {name: child.pid for name, child in self.children.items() if child.pid}
        with contextlib.suppress(OSError):  # a full disk must not keep a process from being started
            leftovers.remember(self._home.leftovers_file, running)

    def _disk_free_mib(self) -> int:
        return shutil.disk_usage(self._home.root).free // (1024 * 1024)

    async def status(self) -> Status:
        """Everything, asked now."""
        await asyncio.gather(*(child.check() for child in self.children.values()))
        return Status(
            phase=self.phase, message=self.message, pid=os.getpid(), control_url=self._config.control_url,
            data_url=self._config.data_url, web_url=self._config.web_url,
            disk_free_mib=self._disk_free_mib(),
            processes=[self._own_status(), *(_status(name, child) for name, child in self.children.items())],
        )  # fmt: skip

    def _own_status(self) -> ProcessStatus:
        up_s = round(time.monotonic() - self.began, 1)
        return ProcessStatus(name="supervisor", pid=os.getpid(), state="running", restarts=0, up_s=up_s)

    async def replace_gateways(self, grace_s: float) -> list[Replaced]:
        """A new process for each gateway, one after the other; raises where one cannot be replaced: the rest stay."""
        if self.phase in ("starting", "stopping"):
            raise Conflict("NOT_READY", f"the platform is {self.phase}", "`easel status` shows it")
        router = self._own["router"]
        if not await router.check():
            raise Unavailable(
                "ROUTER_NOT_READY", f"the router is {router.state}: a new gateway would have no routes",
                f"see {router.plan.log}",
            )  # fmt: skip
        done: list[Replaced] = []
        for gateway in self.gateways:
            done.append(await gateway.replace(grace_s))
            self._say(f"{gateway.name}: {done[-1].how} to pid {done[-1].pid}")
        return done

    # Stopping

    async def stop(self) -> None:
        """Stops everything in order."""
        self.phase = "stopping"
        for stage in (
            ("scheduler", "autoscaler", "control", "monitor"),
            ("agent", "router", "gateways"),
            tuple(name for name in self._own if name not in ("nats", "postgres")),
            ("nats", "postgres"),
        ):
            stops = [self._own[name].stop() for name in stage if name in self._own]
            if "gateways" in stage:
                stops += [gateway.stop() for gateway in self.gateways]
            await asyncio.gather(*stops)
        self._home.leftovers_file.unlink(missing_ok=True)
        self.stopped.set()

    async def _stop_and_wait(self) -> None:
        self.stop_asked.set()
        await self.stopped.wait()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop_asked.wait()

    def door(self) -> AbstractAsyncContextManager[None]:
        """Answers while inside."""
        return control_socket.serve(
            self._home.supervisor_socket, self.status, self._stop_and_wait, self.replace_gateways
        )


def _status(name: str, child: Child) -> ProcessStatus:
    message = child.why_not_ready if child.state != "running" else ""
    if not message and child.state in ("backing off", "failed"):
        message = child.last_exit
    return ProcessStatus(
        name=name, pid=child.pid, state=child.state, restarts=child.restarts, up_s=round(child.up_s, 1),
        message=message,
    )  # fmt: skip


def _quoted(child: Child) -> str:
    return "\n".join(f"    {line}" for line in child.log.last_lines(12)) or "    (it wrote nothing)"
