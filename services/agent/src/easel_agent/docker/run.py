"""One run of a replica: its containers, from their making to their removal. See runtime.Program.

When one of the containers ends, the run has ended: the others go too. Removal is tried again until the engine has
done it or GIVE_UP_S have passed; what is left then is an orphan, which the runtime removes when the engine is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from easel_agent import proc
from easel_agent.decide.containers import Made
from easel_agent.decide.image_errors import explain_container, explain_init
from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_agent.docker.events import Events
from easel_agent.docker.logs import Follower
from easel_agent.docker.usage import ContainerGroup
from easel_agent.model import Listening, Refusal
from easel_agent.replica_log import ReplicaLog
from easel_agent.runtime import CannotPrepare
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

log = get_logger("docker")
GIVE_UP_S = 30.0
LAST_WORDS_S = 2.0
"""How long the end of a container's output is waited for after its end."""


class AddressTaken(Exception):
    """Somebody else in the network has the replica's address."""


class ContainerRun:
    """See runtime.Program."""

    def __init__(self, engine: Engine, events: Events, clock: Clock, log_: ReplicaLog, group: ContainerGroup,
                 volumes: Sequence[str]) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        self._engine, self._events, self._clock, self._log, self._group = engine, events, clock, log_, group
        self._volumes = tuple(volumes)
        self.pid: int | None = None
        self.mount_s = 0.0
        self.started: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.containers: list[str] = []
        """Ids; the main one first."""
        self._followers: list[Follower] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._beginning: asyncio.Task[None] | None = None
        self._terminated = self._removing = False
        self._complaint: str | None = None
        self._words: tuple[str, ...] = ()
        self.exited.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.started.add_done_callback(lambda future: future.cancelled() or future.exception())

    @property
    def container(self) -> str:
        """See runtime.Program."""
        return self.containers[0] if self.containers else ""

    # ---- begin

    async def begin(self, made: Callable[[str], Sequence[Made]]) -> None:
        """Make and start everything. `made(main_id)`: what to make. Raises CannotPrepare, AddressTaken, EngineAway."""
        self._beginning = asyncio.get_running_loop().create_task(self._begin(made))
        try:
            await asyncio.shield(self._beginning)
        except BaseException:
            self.kill()
            raise
        if not self.started.done():
            self.started.set_result(None)

    async def _begin(self, made: Callable[[str], Sequence[Made]]) -> None:
        """A task of its own, which nobody cancels: a call that is given up is carried out all the same."""
        main = made("")[0]
        self._words = main.words
        main_id = await self._create(main)
        rest = [(each, await self._create(each)) for each in made(main_id)[1:]]
        for each, container in [(main, main_id), *rest]:
            if not self._removing:
                await self._start(each, container)

    async def adopt(self, containers: Sequence[str], since: str) -> None:
        """Take over what runs already, or ended just now."""
        self.containers = list(containers)
        self.started.set_result(None)
        for number, container in enumerate(containers):
            self._events.listen(container, self)
            try:
                await self._follow(container, number, since)
            except EngineError:
                self.on_die(container, 137)
            except EngineAway:  # what it is then, is looked at when the engine is back
                continue

    async def _create(self, made: Made) -> str:
        try:
            body = made.body
            found = await self._engine.ask("POST", "containers/create", params={"name": made.name}, data=body)
        except EngineError as error:
            if error.status == 409 and await self._clear_name(made.name):
                return await self._create(made)
            raise CannotPrepare(explain_container("create", error.status, error.message, made.words)) from error
        container = str(found["Id"])
        self.containers.append(container)
        self._events.listen(container, self)
        return container

    async def _clear_name(self, name: str) -> bool:
        """Removes an earlier run's container that could not be removed then; whether there was one of ours."""
        try:
            found = await self._engine.ask("GET", f"containers/{name}/json")
            if "easel.replica" not in found["Config"]["Labels"]:
                return False
            await self._delete(f"containers/{found['Id']}")
            # Still there: the engine cannot remove it. Its name, at least, can be had.
            await self._engine.ask(
                "POST", f"containers/{found['Id']}/rename", params={"name": f"left-{found['Id'][:12]}"}
            )
        except EngineError as error:
            return error.status == 404
        return True

    async def _start(self, made: Made, container: str) -> None:
        try:
            await self._engine.ask("POST", f"containers/{container}/start")
        except EngineError as error:
            if "address already in use" in error.message.lower():
                raise AddressTaken from error
            raise CannotPrepare(explain_container("start", error.status, error.message, made.words)) from error
        await self._follow(container, self.containers.index(container), "0")

    async def _follow(self, container: str, number: int, since: str) -> None:
        prefix = b"" if number == 0 else f"[sidecar {number}] ".encode()
        follower = Follower(self._engine, container, self._log, self._clock, prefix=prefix, since=since)
        self._followers.append(follower)
        self._spawn(follower.run())
        found = await self._engine.ask("GET", f"containers/{container}/json")
        pid = int(found["State"]["Pid"]) or None
        self._group.follow(container, pid)
        if number == 0:
            self.pid = pid
        if found["State"].get("Health", {}).get("Status") == "unhealthy":
            self.on_health(container, "unhealthy")

    # ---- while it runs

    def on_die(self, container: str, code: int) -> None:
        """See events.Listener."""
        if self.exited.done():
            return
        number = self.containers.index(container) if container in self.containers else 0
        if number and not self._removing:
            self._log.event(f"sidecar {number} ended with code {code}, and so the replica's other containers end")
        if not self.started.done():
            self.started.set_result(None)  # so short that it had ended before all was started
        self._spawn(self._exit(code))

    def on_oom(self, container: str) -> None:
        """See events.Listener."""
        self._group.on_oom()
        self._log.event("the kernel ended one of its processes: out of memory")

    def on_health(self, container: str, state: str) -> None:
        """See events.Listener."""
        self._complaint = None if state == "healthy" else "the image's own HEALTHCHECK fails"
        self._log.event(f"its own health check says: {state}")

    def refusal(self) -> Refusal | None:
        """See Program."""
        return explain_init(self._log.tail(), self._words)

    def complaint(self) -> str | None:
        """See Program."""
        return self._complaint

    def listening(self) -> list[Listening] | None:
        """The network is the replica's own, so whoever listens is part of it."""
        return proc.listening_in(self.pid) if self.pid else None

    def terminate(self) -> None:
        """See Program."""
        if not self._terminated:
            self._terminated = True
            self._spawn(self._signal())

    async def probe(self, argv: Sequence[str], timeout_s: float) -> int | None:
        """See Program; it runs in the main container. Raises EngineAway."""
        body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(argv)}
        try:
            made = await self._engine.ask("POST", f"containers/{self.containers[0]}/exec", data=body)
            try:
                async with asyncio.timeout(timeout_s):
                    frames = self._engine.frames(f"exec/{made['Id']}/start", method="POST",
                                                 data={"Detach": False, "Tty": False})  # fmt: skip
                    async with aclosing(frames) as pieces:
                        async for _ in pieces:
                            continue
            except TimeoutError:
                await self._end_exec(made["Id"])
                return None
            found = await self._engine.ask("GET", f"exec/{made['Id']}/json")
        except EngineError:  # it cannot be executed, or the container ends
            return 126
        return int(found["ExitCode"] or 0)

    async def _end_exec(self, exec_id: str) -> None:
        """The engine has no call for it; where its process can be seen, it is ended."""
        found = await self._engine.ask("GET", f"exec/{exec_id}/json")
        pid = found.get("Pid")
        seen = self.pid is not None and proc.same_network(os.getpid(), self.pid) is False  # the engine's pids are ours
        if found.get("Running") and pid and seen and self.pid and proc.same_network(self.pid, pid):
            proc.kill(pid)

    # ---- end

    def kill(self) -> None:
        """See Program."""
        if not self._removing:
            self._removing = True
            self._spawn(self._remove())

    async def _signal(self) -> None:
        for container in self.containers:
            with contextlib.suppress(EngineAway, EngineError):
                found = await self._engine.ask("GET", f"containers/{container}/json")
                signal = found["Config"].get("StopSignal") or "SIGTERM"
                await self._engine.ask("POST", f"containers/{container}/kill", params={"signal": signal})

    async def _exit(self, code: int) -> None:
        """Its last words first: they say why it ended."""
        if self._followers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await asyncio.gather(*(follower.ended.wait() for follower in self._followers[:1]))
        if not self.exited.done():
            self.exited.set_result(128 - code if 128 < code < 192 else code)

    async def _remove(self) -> None:
        try:
            if self._beginning is not None:  # to remove what is being started leaves the engine with half of it
                await asyncio.wait({self._beginning})
                self._beginning.exception()  # whoever waited for it has told it
            await self._until_removed()
        finally:
            self._finish()

    async def _until_removed(self) -> None:
        end = self._clock.monotonic() + GIVE_UP_S
        while True:
            try:
                await asyncio.gather(*(self._delete(f"containers/{each}") for each in reversed(self.containers)))
                await asyncio.gather(*(self._delete(f"volumes/{each}") for each in self._volumes))
                return
            except (EngineAway, EngineError) as error:
                if self._clock.monotonic() >= end:
                    log.error("containers not removed", containers=self.containers, error=error.message)
                    return
                await self._clock.sleep(0.5)

    async def _delete(self, path: str) -> None:
        """Returns when it is gone, or is a dead container that the engine cannot remove: that is nobody's obstacle.

        Raises EngineError while it is being removed (409), or runs.
        """
        try:
            await self._engine.ask("DELETE", path, params={"force": "1", "v": "1"})
        except EngineError as error:
            if error.status == 404:
                return
            if error.status == 409 or not path.startswith("containers/") or await self._runs(path):
                raise
            log.warning("the engine cannot remove a dead container", path=path, error=error.message)

    async def _runs(self, path: str) -> bool:
        try:
            return bool((await self._engine.ask("GET", f"{path}/json"))["State"]["Running"])
        except EngineError as error:
            return error.status != 404

    def _finish(self) -> None:
        for container in self.containers:
            self._events.forget(container)
        mine = asyncio.current_task()
        for task in self._tasks:
            if task is not mine:
                task.cancel()
        if not self.started.done():
            self.started.set_exception(EngineAway("it was ended before it had started"))
        if not self.exited.done():
            self.exited.set_result(-9)
        if not self.gone.done():
            self.gone.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
