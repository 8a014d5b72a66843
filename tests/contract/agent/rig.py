"""The agent's parts as the contract suite drives them: replicas as processes, or as containers of a real engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from easel_agent import isolation
from easel_agent.app import Agent
from easel_agent.limits import Limits
from easel_agent.model import Isolation, Restarting, Stopping
from easel_agent.processes import Children, Launched, become_subreaper
from easel_agent.runtime import RevisionSecrets
from easel_agent.settings import AgentSettings
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import Image, Mount, Resources, RevisionSpec, RunSpec, ScratchSource
from easel_kit.clock import SystemClock
from tests.docker_rig import SMALL_IMAGE

DEADLINE_S = 20.0
_numbers = itertools.count(1)


class FakeControl:
    """Values of environments and archives, as control would give them."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.sidecars: tuple[dict[str, str], ...] = ()
        self.registry_login = ""
        self.archives: dict[str, bytes] = {}

    async def of_revision(self, workspace: str, service: str, revision: int) -> RevisionSecrets:
        """The same for everything."""
        return RevisionSecrets(env=self.env, sidecars=self.sidecars, registry_login=self.registry_login)

    async def code(self, digest: str) -> AsyncIterator[bytes]:
        """One piece."""
        yield self.archives[digest]

    def pack(self, **files: str) -> str:
        """Keep an archive of these files (`app_py` is `app.py`); its digest."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name.replace("_", "."))
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        digest = "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()
        self.archives[digest] = buffer.getvalue()
        return digest


class Rig:
    """Starts, stops and watches replicas; keeps every report seen."""

    def __init__(self, agent: Agent, found: Isolation, children: Children, control: FakeControl) -> None:
        self.agent, self.isolation, self.children, self.control = agent, found, children, control
        self.seen: dict[str, list[ReplicaReport]] = {}
        self.published: list[tuple[str, str, Struct]] = []
        self._changed = asyncio.Event()
        self._watching = asyncio.create_task(self._watch())
        self._sampling = asyncio.create_task(agent.sampler.run())

    def home(self, run: RunSpec) -> Path:
        """On the node: the directory in which a replica without mounts is started."""
        return self.agent.fleet.replicas[run.replica].directory / "home"

    def processes(self, run: RunSpec) -> list[psutil.Process]:
        """Everything of a replica that runs."""
        program = self.agent.fleet.replicas[run.replica].program
        assert isinstance(program, Launched)
        init = psutil.Process(program.init_pid)
        return [init, *init.children(recursive=True)]

    def spec(self, command: str | None = None, *, memory_mib: int = 256, **revision: Any) -> RunSpec:
        """A replica with a name of its own."""
        number = next(_numbers)
        defaults: dict[str, Any] = {"port": 8000, "resources": Resources(cpu=1, memory_mib=memory_mib)}
        made = RevisionSpec(number=1, command=command, **(defaults | revision))
        return RunSpec(workspace="default", service="svc", replica=f"svc-1-{number:05}", revision=made)

    async def start(self, run: RunSpec) -> RunSpec:
        """Start and return what was started."""
        self.agent.fleet.start(run, 1)
        return run

    async def run(self, command: str | None = None, **options: Any) -> RunSpec:
        """Start a replica made by `spec`."""
        return await self.start(self.spec(command, **options))

    async def stop(
        self, run: RunSpec, *, grace_s: float = 5, sigterm: bool = False, idle: bool = True
    ) -> ReplicaReport:
        """Stop and wait until nothing is left."""
        self.agent.fleet.stop(run.replica, Stopping(grace_s=grace_s, sigterm=sigterm, idle=idle), 1)
        return await self.until(run, lambda report: report.phase == "stopped")

    def restart(self, run: RunSpec, number: int, *, grace_s: float = 5, sigterm: bool = True) -> bool:
        """Ask for a start of its program anew."""
        how = Stopping(grace_s=grace_s, sigterm=sigterm, idle=False)
        return self.agent.fleet.restart(run.replica, Restarting(number=number, how=how), 1)

    async def until(self, run: RunSpec, wanted: Callable[[ReplicaReport], bool]) -> ReplicaReport:
        """The first report for which `wanted` holds, also of those already seen."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    for report in self.seen.get(run.replica, []):
                        if wanted(report):
                            return report
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never seen; last: {self.seen.get(run.replica, ['nothing'])[-1]}") from None

    async def ready(self, run: RunSpec) -> ReplicaReport:
        """Wait until it is ready."""
        return await self.until(run, lambda report: report.ready)

    async def logs(self, run: RunSpec, **options: Any) -> list[tuple[str, str]]:
        """What is kept of the log: (stream, text)."""
        wanted: dict[str, Any] = {"tail_lines": -1, "follow": False, "previous": False} | options
        return [(stream, data.decode()) async for stream, data in self.agent.fleet.logs(run.replica, **wanted)]

    async def printed(self, run: RunSpec, text: str) -> str:
        """Wait until the program has printed a line with `text`; the whole output."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    output = "".join(part for _, part in await self.logs(run))
                    if text in output:
                        return output
                    await asyncio.sleep(0.02)
        raise AssertionError(f"{text!r} was not printed; log: {output}")

    async def close(self) -> None:
        """End everything."""
        self._sampling.cancel()
        await self.agent.fleet.close()
        self._watching.cancel()
        await asyncio.gather(self._sampling, self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        async for report in self.agent.fleet.watch(5):
            if isinstance(report, ReplicaReport):
                self.seen.setdefault(report.replica, []).append(report)
                self._changed.set()


class Spared(Children):
    """A test's own engine, and what it leaves behind, is below this process: nothing the agent may sweep up."""

    def sweep(self) -> int:
        """See Children."""
        return 0


class DockerRig(Rig):
    """Replicas as containers; each has a scratch directory, in which it is started unless it mounts another before."""

    image = Image(reference="python:3.11-slim-bookworm", pull="Never")

    def home(self, run: RunSpec) -> Path:
        """See Rig."""
        return self.agent.fleet.replicas[run.replica].directory / f"empty-{len(run.revision.mounts) - 1}"

    def processes(self, run: RunSpec) -> list[psutil.Process]:
        """See Rig."""
        program = self.agent.fleet.replicas[run.replica].program
        assert program is not None
        init = psutil.Process(program.pid)
        return [init, *init.children(recursive=True)]

    def spec(self, command: str | None = None, *, memory_mib: int = 256, **revision: Any) -> RunSpec:
        """See Rig."""
        scratch = Mount(mount_path="/scratch", source=ScratchSource(), read_only=False)
        mounts = (*revision.pop("mounts", ()), scratch)
        defaults: dict[str, Any] = {"image": self.image, "mounts": mounts}
        return super().spec(command, memory_mib=memory_mib, **(defaults | revision))


class SmallRig(DockerRig):
    """Of an image that is quick to start; it has a shell, httpd and nc, and no Python."""

    image = Image(reference=SMALL_IMAGE, pull="Never")


@contextlib.asynccontextmanager
async def docker_runtime(
    home: Path, *, docker: str = "unix:///var/run/docker.sock", kind: type[DockerRig] | None = None, **settings: Any
) -> AsyncIterator[DockerRig]:
    """The agent's parts with an engine, the machine's by default."""
    async with process_runtime(home, kind=kind or DockerRig, docker=docker, **settings) as made:
        assert isinstance(made, DockerRig)
        yield made


@contextlib.asynccontextmanager
async def runtime_of(kind: str, home: Path) -> AsyncIterator[Rig]:
    """`process` or `docker`, as it is without settings."""
    made = docker_runtime(home) if kind == "docker" else process_runtime(home)
    async with made as rig:
        yield rig


@contextlib.asynccontextmanager
async def process_runtime(
    home: Path,
    *,
    found: Isolation | None = None,
    limits: Limits | None = None,
    kind: type[Rig] = Rig,
    docker: str = "",
    **settings: Any,
) -> AsyncIterator[Rig]:
    """The agent's parts over `home`, without a bus."""
    home.mkdir(parents=True, exist_ok=True, mode=0o711)
    os.chmod(home, 0o711)
    made = AgentSettings(home=home, nats_url="", mode="standalone", docker=docker, **settings)
    become_subreaper()
    children, control = (Spared() if docker else Children()), FakeControl()
    found = found or await isolation.find(home, made.hidden(), children, root=os.geteuid() == 0)
    runtime: list[Rig] = []

    async def publish(kind: str, key: str, metrics: Struct) -> None:
        runtime[0].published.append((kind, key, metrics))

    agent = Agent(made, found, children, SystemClock(), control, control.code, publish, limits)
    await agent.begin()
    events = asyncio.create_task(agent.docker.events.run()) if agent.docker else None
    runtime.append(kind(agent, found, children, control))
    try:
        yield runtime[0]
    finally:
        await runtime[0].close()
        if events is not None:
            events.cancel()
            await asyncio.wait({events})
