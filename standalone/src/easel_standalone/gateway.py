"""One gateway: an Envoy that is kept running, and replaced without losing a request.

Its successor takes the listening sockets over (Envoy's hot restart); the one before finishes what it has, then ends.
Where that fails the successor begins beside it, at the same ports, and only when it is ready the other one is ended: a
gateway that works is never given for one that does not. Which process follows which: `decide/gateways.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import Conflict, Refused, Unavailable
from easel_standalone import envoy, ports, probes
from easel_standalone.child import Child, Plan
from easel_standalone.decide.gateways import Process, anew, may_end, successor
from easel_standalone.home import Config, Home, listening

START_S = 30.0
"""For a successor to become ready; then the gateway stays as it is."""
LOOK_S = 1.0
"""Between two looks at the connections of one that finishes."""
GIVE_UP_STARTS = 4
Say = Callable[[str], None]
MakePlan = Callable[[Process, float], Plan]
"""The plan of a process; seconds that the one before it has to finish."""


class Replaced(Struct, frozen=True, kw_only=True):
    """A gateway has a new process."""

    gateway: str
    pid: int | None
    how: Literal["handed over", "begun anew"]
    """begun anew: the sockets could not be handed over; connections may have been cut."""
    cut: int = 0
    """Connections that were closed at once."""


class _Finishing:
    """A process that was replaced."""

    def __init__(self, process: Process, child: Child, grace_s: float) -> None:
        self.process, self.child, self.grace_s = process, child, grace_s
        self.since = time.monotonic()
        self.connections: int | None = None

    def says(self) -> str:
        """What it does, for a person."""
        known = "not known yet" if self.connections is None else str(self.connections)
        left_s = max(0.0, self.grace_s - (time.monotonic() - self.since))
        return f"was replaced and finishes what it has (connections: {known}), at most {left_s:.0f} s more"


class Gateway:
    """What clients know as one gateway."""

    def __init__(
        self, home: Home, config: Config, name: str, make_plan: MakePlan, on_start: Callable[[], None], say: Say
    ) -> None:
        self.name = name
        self._home, self._config, self._make_plan, self._on_start, self._say = home, config, make_plan, on_start, say
        self._ids = envoy.ids_of(home, config, name)
        number = envoy.next_number(home, name)
        self._processes: dict[Child, Process] = {}
        """Those that live, or are kept alive."""
        self.current = self._child(Process(gateway=name, number=number, base_id=self._ids[0]), 0.0)
        self._coming: Child | None = None
        self._finishing: _Finishing | None = None
        self._seeing_off: asyncio.Task[None] | None = None
        self._stand_in: socket.socket | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Begins to keep it running."""
        self.current.start()

    @property
    def children(self) -> dict[str, Child]:
        """Its processes by the name a person sees: the gateway's is the one that takes new connections."""
        found = {self.name: self.current}
        if self._finishing is not None:
            found[self._finishing.process.node_id] = self._finishing.child
        if self._coming is not None:
            found[self._processes[self._coming].node_id] = self._coming
        return found

    @property
    def is_being_replaced(self) -> bool:
        """Whether a new process is about to take over."""
        return self._coming is not None

    async def answers(self) -> bool | str:
        """Whether this very gateway refuses a service that cannot exist as EAS would, or what it says instead."""
        path = envoy.probe_socket(self._home, self._processes[self.current])
        answer = await probes.get(path, "/api/predict/0_is_easel_up")
        return (answer.status == 404 and answer.body.startswith("{")) or f"{answer.status} {answer.body[:200]}"

    async def replace(self, grace_s: float) -> Replaced:
        """Gives it a new process. What the present one is answering has `grace_s` to end.

        Raises Conflict while an earlier one still finishes, Refused where the new one's configuration is not accepted,
        Unavailable where the new one does not become ready; the present one goes on then.
        """
        self._require_whole()
        old, lives = self.current, self.current.restarts
        process = successor(self._processes[old], envoy.next_number(self._home, self.name))
        try:
            new = self._coming = self._child(process, grace_s)
        except OSError as error:
            raise Refused("CANNOT_WRITE", f"{self.name}'s configuration: {error}", "free some space") from error
        try:
            await self._require_valid(new.plan)
            new.start()
            await self._until_ready(new)
        except BaseException:
            await new.stop()
            self._end(new)
            raise
        finally:
            self._coming = None
        self.current = new
        if new.restarts == 0 and old.restarts == lives:
            self._see_off(old, grace_s)
            return Replaced(gateway=self.name, pid=new.pid, how="handed over")
        return Replaced(gateway=self.name, pid=new.pid, how="begun anew", cut=await self._part_from(old, grace_s))

    async def stop(self) -> None:
        """Ends all of its processes."""
        self._is_stopping = True
        children = list(self._processes)
        await asyncio.gather(*(child.stop() for child in children))
        if self._seeing_off is not None:
            await self._seeing_off
        if self._stand_in is not None:
            self._stand_in.close()
        for process in self._processes.values():
            envoy.forget_memory(process)

    # Inside

    def _child(self, process: Process, grace_s: float) -> Child:
        """The child of a process; each further life of it begins without a predecessor."""
        plan = self._make_plan(process, grace_s)
        child = Child(plan, on_start=self._on_start)

        def again() -> Plan:
            others = [other for kept, other in self._processes.items() if kept is not child]
            self._processes[child] = anew(self._processes[child], self._ids, others)
            return replace(self._make_plan(self._processes[child], 0.0), again=again)

        child.plan = replace(plan, again=again)
        self._processes[child] = process
        return child

    def _require_whole(self) -> None:
        if self._coming is not None:
            raise Conflict("RESTART_UNDER_WAY", f"{self.name} is being replaced now", "`easel status` shows it")
        if self._finishing is not None:
            finishing = self._finishing
            raise Conflict(
                "STILL_FINISHING", f"the process before {self.name}'s (pid {finishing.child.pid}) {finishing.says()}",
                f"try again when it has ended, or `kill {finishing.child.pid}`: that cuts what it still has",
            )  # fmt: skip
        if self.current.pid is None:
            raise Unavailable(
                "GATEWAY_DOWN", f"{self.name} does not run ({self.current.last_exit}); it is being started",
                f"see {self.current.plan.log}",
            )  # fmt: skip

    async def _require_valid(self, plan: Plan) -> None:
        """Asks the program itself: what would end a successor must not be found out by one."""
        check = Child(
            replace(plan, name=f"{self.name} check", command=[*plan.command[:3], "--mode", "validate", "--log-level",
                    "warning"], again=None)
        )  # fmt: skip
        step = asyncio.create_task(check.run_once())
        await asyncio.wait([step], timeout=START_S)
        if not step.done():
            check.kill()
        if await step != 0:
            raise Refused(
                "GATEWAY_CONFIG", f"a new {self.name} would not start ({check.last_exit}); the present one goes on:\n"
                + "\n".join(check.log.last_lines(5)), f"see {plan.log}; TLS files are read anew",
            )  # fmt: skip

    async def _until_ready(self, new: Child) -> None:
        end = time.monotonic() + START_S
        while not await new.check():
            if self._is_stopping:
                raise Refused("STOPPED", "the platform is being stopped")
            if new.restarts >= GIVE_UP_STARTS or time.monotonic() > end:
                why = new.why_not_ready or new.last_exit or "it does not answer"
                raise Unavailable(
                    "GATEWAY_NOT_REPLACED", f"a new {self.name} was not ready within {START_S:g} s: {why}; the present"
                    " one goes on", f"see {new.plan.log}",
                )  # fmt: skip
            await asyncio.sleep(0.05)

    async def _part_from(self, old: Child, grace_s: float) -> int:
        """Ends one that was not told to hand over; by its admin interface where that still listens."""
        address = envoy.admin_socket(self._home, self._processes[old])
        asked = await probes.get(address, "/drain_listeners?graceful", method="POST")
        if asked.status == 200:
            self._see_off(old, grace_s)
            return 0
        cut = self._connections(old)
        self._say(f"{self.name}: the process before could not be drained; {cut} connections are closed")
        old.retire()
        await old.stop()
        self._end(old)
        return cut or 0

    def _see_off(self, old: Child, grace_s: float) -> None:
        old.retire()
        finishing = self._finishing = _Finishing(self._processes[old], old, grace_s)
        self._seeing_off = asyncio.create_task(self._until_done(finishing), name=f"see off {finishing.process.node_id}")

    async def _until_done(self, finishing: _Finishing) -> None:
        child, quiet = finishing.child, 0
        while not await child.wait_end(LOOK_S):
            finishing.connections = await asyncio.to_thread(self._connections, child)
            child.why_not_ready = finishing.says()
            quiet = quiet + 1 if finishing.connections == 0 else 0
            if may_end(time.monotonic() - finishing.since, quiet, finishing.grace_s):
                break
        if finishing.connections:
            self._say(f"{finishing.process.node_id}: {finishing.connections} connections are closed, its time is over")
        self._stand_in_for(finishing.process)
        await child.stop()
        self._end(child)
        self._finishing = None

    def _connections(self, child: Child) -> int | None:
        pid = child.pid
        return ports.open_connections(pid, *(port for _, port in listening(self._config).values())) if pid else 0

    def _stand_in_for(self, predecessor: Process) -> None:
        """Listens where a successor would tell its predecessor to end: Envoy 1.40 aborts where nobody does.

        In the place of the predecessor's socket, at once, so that there is no moment without one.
        """
        present = self._processes.get(self.current)
        if present is None or present.base_id != predecessor.base_id or present.epoch == 0:
            return
        path = Path(f"{self._home.run / envoy.HOT}{present.parents_socket}")
        fresh = path.with_name(f"{envoy.HOT}_{self.name}.sock")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.bind(str(fresh))
        os.chmod(fresh, 0o600)
        fresh.rename(path)
        if self._stand_in is not None:
            self._stand_in.close()
        self._stand_in = listener

    def _end(self, child: Child) -> None:
        """Removes what a process left that does not come back."""
        process = self._processes.pop(child)
        with contextlib.suppress(OSError):
            envoy.forget(self._home, process)
        if process.base_id not in {other.base_id for other in self._processes.values()}:
            envoy.forget_memory(process)
