"""Replicas as containers: prepares, starts, adopts, and removes what nobody knows. See runtime.Runtime."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from easel_agent.decide import mounts as mount_rules
from easel_agent.decide.containers import Part, Place, container, mounts, parts, refusal, volumes_of
from easel_agent.docker.engine import Engine, EngineAway, EngineError
from easel_agent.docker.events import Events
from easel_agent.docker.files import FilesOfImages
from easel_agent.docker.images import Found, Images
from easel_agent.docker.logs import written_until
from easel_agent.docker.network import Network
from easel_agent.docker.packages import Packages, Wanted
from easel_agent.docker.run import AddressTaken, ContainerRun
from easel_agent.docker.usage import ContainerGroup
from easel_agent.fetching import Fetching, in_the_image, requirements, resolved
from easel_agent.model import Refusal
from easel_agent.runtime import Asked, CannotPrepare, Node, Prepared, Secrets, Survivor, Uses
from easel_contracts.errors import Refused, Unavailable
from easel_contracts.spec import RunSpec
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger

if TYPE_CHECKING:
    from easel_agent.replica import Replica

log = get_logger("docker")
REMOVED_WITHIN_S = 10.0
STARTS_AT_A_TIME = 16
"""An engine that is asked for fifty at once is slower with all of them than with one after the other."""
AGENT, REPLICA, RUN, CONTAINER = "easel.agent", "easel.replica", "easel.run", "easel.container"
GPUS, USES = "easel.gpus", "easel.uses"
"""Labels: the agent's group, the replica's id, its RunSpec, the container's number, its GPUs, what it has of caches."""


class PreparedContainers(Struct, frozen=True, kw_only=True):
    """See runtime.Prepared."""

    parts: tuple[Part, ...]
    place: Place
    mounts: tuple[dict[str, Any], ...]
    uses: Uses


class DockerRuntime:
    """Replicas of one agent on one engine."""

    def __init__(self, *, node: Node, engine: Engine, events: Events, images: Images, network: Network,
                 packages: Packages, fetching: Fetching, secrets: Secrets, clock: Clock, group: str, gpus: int,
                 hidden: Collection[str], log_bytes: int, inherited: Mapping[str, str]) -> None:  # fmt: skip
        self._node, self._engine, self.events, self.images, self._network = node, engine, events, images, network
        self.packages, self._fetching, self._secrets, self._clock = packages, fetching, secrets, clock
        self.group, self._hidden, self._log_bytes = group, hidden, log_bytes
        self._inherited = dict(inherited)
        self._gpus: dict[str, str | None] = {str(number): None for number in range(gpus)}
        """GPU → the replica that has it."""
        self._known: set[str] = set()
        """Replicas whose containers are not to be removed as orphans."""
        self._starting = asyncio.Semaphore(STARTS_AT_A_TIME)
        self._init = shutil.which("docker-init") is not None
        self.parent_group = ""
        """That of the node's limits, where it has some."""
        self.isolation = "container"
        self.limits = "docker: memory and CPU are hard limits, processes are counted"
        self._sweeping: asyncio.Task[None] | None = None
        events.on_back = self.sweep

    def enclosed_in(self) -> str:
        """The control group that containers are put into; empty: the engine's own."""
        return self.parent_group if self.parent_group and self.events.cgroup_driver == "cgroupfs" else ""

    # ---- a replica

    async def prepare(self, replica: Replica) -> Prepared:
        """See Runtime."""
        run, event = replica.spec, replica.note
        if self.events.why_not:
            raise Unavailable("NO_ENGINE", self.events.why_not)
        self._check_mounts(run)
        asked = Asked(self._secrets, run)
        secrets = await asked.environment()
        images = await self._images(run, asked, event)
        replica.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        of_images = FilesOfImages(self._engine, self.images, asked.registry_login, {AGENT: self.group}, event)
        files = await self._fetching.fetch(run, replica.directory, secrets.logins, event, of_images)
        wanted = Wanted(lines=requirements(run, files.paths), file=in_the_image(run))
        packages = await self.packages.get(images[0], wanted, event) if wanted else None
        await self._reserve(replica)
        replica.pins = {**_pins(images), **files.pins}
        made = parts(run, [(found.id, found.config) for found in images], secrets.env, secrets.sidecars)
        for part in made:
            if (why := refusal(part)) is not None:
                raise CannotPrepare(why)
        place = self._place(replica, str(packages) if packages else None)
        sources = {path: str(source) for path, source in files.paths.items()}
        return PreparedContainers(
            parts=made, place=place, mounts=mounts(run, sources, {AGENT: self.group}, place.packages),
            uses=Uses(venv=packages.name if packages else "", archives=files.archives, held=files.held),
        )  # fmt: skip

    async def start(self, replica: Replica, prepared: Prepared) -> ContainerRun:
        """See Runtime."""
        assert isinstance(prepared, PreparedContainers)
        group = ContainerGroup(self._engine)
        replica.group, replica.kills_before = group, 0
        volumes = [f"{replica.spec.replica}-{number}" for number in volumes_of(replica.spec)]
        run = ContainerRun(self._engine, self.events, self._clock, replica.log, group, volumes)
        replica.program = run
        place = msgspec.structs.replace(prepared.place, labels=self._labels(replica, prepared.uses), ip=replica.ip)
        try:
            async with self._starting:
                await run.begin(lambda main_id: [
                    container(replica.spec, part, place, prepared.mounts, main_id=main_id) for part in prepared.parts
                ])  # fmt: skip
        except AddressTaken as error:
            taken, replica.ip = replica.ip, self._network.reserve(replica.spec.replica)
            self._network.release(taken)
            raise Unavailable("ADDRESS_TAKEN", f"{taken} is somebody else's, {replica.ip} is tried next") from error
        return run

    async def release(self, replica: Replica) -> None:
        """See Runtime."""
        self._known.discard(replica.spec.replica)
        if replica.ip:
            self._network.release(replica.ip)
        for gpu, holder in self._gpus.items():
            if holder == replica.spec.replica:
                self._gpus[gpu] = None

    async def close(self) -> None:
        """See Runtime."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        try:
            if not self.events.why_not:
                await self.remove_orphans(builds=True)  # of a call whose answer was lost when the engine went away
                await self._network.remove()
        except (EngineAway, EngineError) as error:
            log.warning("something is left in the engine", label=f"{AGENT}={self.group}", error=error.message)
        await self._engine.end()

    # ---- after the agent, or the engine, was away

    async def survivors(self, expected: Collection[str]) -> list[Survivor]:
        """What runs on from an earlier agent and should; everything else of ours is removed. Raises EngineAway."""
        await self.events.look()
        found = [
            await self._survivor(name, listed) for name, listed in (await self._ours()).items() if name in expected
        ]
        adopted = [survivor for survivor in found if survivor is not None]
        self._known |= {survivor.run.replica for survivor in adopted}
        await self.remove_orphans(builds=True)
        return adopted

    async def remove_orphans(self, *, builds: bool = False) -> None:
        """Containers with our label of no replica that is known; volumes of none. `builds`: those that only fetch or
        install, too, though they run. What an engine cannot remove is told and left. Raises EngineAway."""
        for name, listed in (await self._ours()).items():
            orphans = [item for item in listed if name or builds or item["State"] == "exited"]
            if name not in self._known:
                for item in orphans:
                    await self._clear_away(f"containers/{item['Id']}", name)
        volumes = (await self._engine.ask("GET", "volumes", params=self._filters())).get("Volumes") or ()
        for volume in volumes:
            if (name := volume["Name"].rpartition("-")[0]) not in self._known:
                await self._clear_away(f"volumes/{volume['Name']}", name)

    def sweep(self) -> None:
        """Begin to remove orphans, beside everything else."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        with contextlib.suppress(EngineAway):  # there is another one when it is back
            await self.remove_orphans()

    def _filters(self) -> dict[str, str]:
        return {"filters": json.dumps({"label": [f"{AGENT}={self.group}"]})}

    async def _clear_away(self, path: str, replica: str) -> None:
        """Returns when it is gone, or can be said not to go now."""
        end = self._clock.monotonic() + REMOVED_WITHIN_S
        while True:
            try:
                await self._engine.ask("DELETE", path, params={"force": "1", "v": "1"})
                log.info("removed, being nobody's", path=path, replica=replica)
                return
            except EngineError as error:
                if error.status == 404:
                    return
                if error.status != 409 or self._clock.monotonic() >= end:  # 409: somebody is removing it
                    log.warning("the engine cannot remove it", path=path, replica=replica, error=error.message)
                    return
                await self._clock.sleep(0.1)

    async def _survivor(self, name: str, listed: list[dict[str, Any]]) -> Survivor | None:
        main = next((item for item in listed if item["Labels"].get(CONTAINER) == "0"), None)
        if main is None or any(item["State"] != "running" for item in listed):
            return None
        try:
            run = msgspec.msgpack.decode(base64.b64decode(main["Labels"][RUN]), type=RunSpec)
            uses = msgspec.json.decode(main["Labels"][USES], type=Uses)
        except (KeyError, ValueError, msgspec.MsgspecError):
            return None
        if len(listed) != 1 + len(run.revision.sidecars):
            return None
        attached = main["NetworkSettings"]["Networks"].get(self._network.name)
        if attached is None:  # it is to use another network now
            return None
        await self._network.ensure()
        address = attached["IPAddress"]
        self._network.keep(address, name)
        self._gpus |= {gpu: name for gpu in main["Labels"].get(GPUS, "").split(",") if gpu in self._gpus}
        ids = [str(item["Id"]) for item in listed]
        since = written_until(self._node.home / "logs" / name / "current")
        return Survivor(
            run=run, ip=address, port=run.revision.port, uses=uses, attach=partial(self._attach, ids, since)
        )

    async def _attach(self, containers: list[str], since: str, replica: Replica) -> None:
        group = ContainerGroup(self._engine)
        volumes = [f"{replica.spec.replica}-{number}" for number in volumes_of(replica.spec)]
        run = ContainerRun(self._engine, self.events, self._clock, replica.log, group, volumes)
        replica.group, replica.program = group, run
        await run.adopt(containers, since)

    async def _ours(self) -> dict[str, list[dict[str, Any]]]:
        """Replica → its containers as the engine lists them, the main one first."""
        listed = await self._engine.ask("GET", "containers/json", params={"all": "true", **self._filters()})
        found: dict[str, list[dict[str, Any]]] = {}
        for item in sorted(listed, key=lambda item: int(item["Labels"].get(CONTAINER, 0))):
            found.setdefault(item["Labels"].get(REPLICA, ""), []).append(item)
        return found

    # ---- parts of preparing

    async def _images(self, run: RunSpec, asked: Asked, event: Any) -> list[Found]:
        assert run.revision.image is not None
        wanted = [run.revision.image, *(sidecar.image for sidecar in run.revision.sidecars)]
        found = []
        for number, image in enumerate(wanted):
            pin = run.pins.get(f"containers[{number}].image")
            found.append(await self.images.get(image, pin, asked.registry_login, event))
        return found

    async def _reserve(self, replica: Replica) -> None:
        self._known.add(replica.spec.replica)
        replica.port = replica.spec.revision.port
        if not replica.ip:  # else this is another attempt
            try:
                await self._network.ensure()
                replica.ip = self._network.reserve(replica.spec.replica)
            except Refused as error:
                raise CannotPrepare(Refusal(cause="internal", message=str(error))) from error

    def _gpus_of(self, replica: Replica) -> tuple[str, ...]:
        name, wanted = replica.spec.replica, replica.spec.revision.resources.gpu
        mine = [gpu for gpu, holder in self._gpus.items() if holder == name]
        free = [gpu for gpu, holder in self._gpus.items() if holder is None]
        taken = (mine + free)[:wanted]
        if len(taken) < wanted:
            message = f"{wanted} GPUs are wanted and {len(taken)} are free on node {self._node.node_id}."
            raise CannotPrepare(Refusal(cause="internal", message=message))
        self._gpus |= dict.fromkeys(taken, name)
        return tuple(taken)

    def _place(self, replica: Replica, packages: str | None) -> Place:
        return Place(
            labels={}, network=self._network.name, ip=replica.ip, node=self._node.node_id,
            processes=self._node.processes_per_replica, init=self._init, log_bytes=self._log_bytes,
            cpus=float(os.cpu_count() or 1),
            parent_group=self.enclosed_in(), gpus=self._gpus_of(replica), packages=packages, inherited=self._inherited,
        )  # fmt: skip

    def _labels(self, replica: Replica, uses: Uses) -> dict[str, str]:
        run = msgspec.structs.replace(replica.spec, pins=replica.pins)
        gpus = ",".join(gpu for gpu, holder in self._gpus.items() if holder == run.replica)
        return {AGENT: self.group, REPLICA: run.replica, "easel.service": run.service, GPUS: gpus,
                USES: msgspec.json.encode(uses).decode(),
                RUN: base64.b64encode(msgspec.msgpack.encode(run)).decode()}  # fmt: skip

    def _check_mounts(self, run: RunSpec) -> None:
        why = mount_rules.refusal(resolved(run.revision.mounts), self._hidden)
        if why is not None:
            raise CannotPrepare(Refusal(cause="mount", message=why))


def _pins(images: list[Found]) -> dict[str, str]:
    return {f"containers[{number}].image": found.pin for number, found in enumerate(images)}
