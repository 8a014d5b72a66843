"""An xDS server in this process, and the Envoys that it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from easel_kit.clock import SystemClock
from easel_kit.testing import accepts, eventually
from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_router.decide.groups import GroupPlan
from easel_router.decide.holding import MAX_TRIES, Refuse, unreachable
from easel_router.decide.snapshot import ServicePlan
from easel_router.direct import Direct
from easel_router.envoys import Envoys
from easel_router.hold import Asked, Go
from easel_router.testing.envoy import Envoy, two_free_ports, until
from easel_router.testing.plans import a_plan
from easel_router.xds.catalog import Catalog, Versions
from easel_router.xds.clusters import every_cluster
from easel_router.xds.groups import render_group
from easel_router.xds.listener import listeners
from easel_router.xds.load import Loads
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render
from easel_router.xds.server import XdsServer
from easel_router.xds.web import web_scope

PROCESS_TOKEN = "test-process-token"
PROBE_SECRET = "test-probe-secret"


class Rig:
    """An xDS server and what it serves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.catalog, self.loads = Catalog(), Loads()
        self.asked: list[Asked] = []
        """Questions about held requests, as they came."""
        self.answer: Callable[[Asked], Awaitable[Go | Refuse]] = _at_once
        self.server = XdsServer(self.catalog, self.loads, listeners, lambda token: token == PROCESS_TOKEN, self._ask)
        self.xds_addr = f"unix:{directory}/xds.sock"
        self.known_envoys = Envoys(self.server, SystemClock(), 15.0, PROBE_SECRET)
        self.direct = Direct(self.catalog, self.known_envoys)
        self.envoys: list[Envoy] = []
        self.hashes: dict[str, str] = {}

    async def _ask(self, asked: Asked) -> Go | Refuse:
        self.asked.append(asked)
        return await self.answer(asked)

    def put(self, plan: ServicePlan) -> Versions:
        """Puts a service's resources into the catalog; what to wait for."""
        made = render(plan, PROBE_SECRET)
        self.hashes[plan.service] = made.route_hash
        wanted: dict[str, dict[str, str | None]] = {CLUSTER: {}, ENDPOINTS: {}, ROUTE: {}}
        for kind, names in wanted.items():
            for name in (plan.service, web_scope(plan.service)) if kind == ROUTE else every_cluster(plan.service):
                names[name] = self.catalog.put(kind, name, made.by_type[kind].get(name))
        # with a cluster goes Envoy's interest in its endpoints
        wanted[ENDPOINTS] = {name: v for name, v in wanted[ENDPOINTS].items() if v is not None}
        return wanted

    def put_group(self, plan: GroupPlan) -> Versions:
        """Puts a group's scopes into the catalog; what to wait for."""
        made = render_group(plan, PROBE_SECRET)
        self.hashes[plan.group] = made.route_hash
        return {ROUTE: {name: self.catalog.put(ROUTE, name, body) for name, body in made.by_type[ROUTE].items()}}

    async def acknowledged(self, wanted: Versions) -> None:
        """Waits for every connected Envoy."""
        for stream in list(self.server.streams.values()):
            await asyncio.wait_for(stream.acknowledged(wanted), 10)

    async def envoy(
        self,
        node_id: str = "envoy-0",
        data_port: int = 0,
        arguments: Sequence[str] = ("--disable-hot-restart",),
        **overrides: Any,
    ) -> Envoy:
        """Starts an Envoy and waits until it serves."""
        data, control = two_free_ports()
        made = Envoy(self.directory, node_id, data_port or data, control)
        self.envoys.append(made)
        await made.start(self.config(made, **overrides), arguments)
        await until(
            lambda: node_id in self.server.streams and self.server.streams[node_id].is_live(), f"{node_id} is live"
        )
        await eventually(made.is_ready)  # it acknowledges a moment before its workers listen
        for port in (made.data_port, made.control_port):
            await eventually(partial(accepts, port))
        return made

    def config(self, envoy: Envoy, **overrides: Any) -> dict[str, Any]:
        """The bootstrap of one of its Envoys."""
        values: dict[str, Any] = {
            "node_id": envoy.node_id,
            "process_token": PROCESS_TOKEN,
            "xds_addr": self.xds_addr,
            "sink_addr": "",
            "process_addrs": {},
            "data_addr": f"127.0.0.1:{envoy.data_port}",
            "control_addr": f"127.0.0.1:{envoy.control_port}",
            "admin_socket": str(self.directory / f"{envoy.node_id}.admin"),
            "probe_addr": f"unix:{self.directory}/{envoy.node_id}.probe",
            "descriptors": public_descriptors(),
        }
        return bootstrap(BootstrapConfig(**(values | overrides)))


async def _at_once(asked: Asked) -> Go | Refuse:
    """Nobody waits, unless a test says so."""
    return unreachable(a_plan(asked.service)) if asked.attempt >= MAX_TRIES else Go(left_s=60.0)


@asynccontextmanager
async def rig(directory: Path) -> AsyncIterator[Rig]:
    """An xDS server that is loaded; ends its Envoys when left."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Rig(directory)
    server = await made.server.start(made.xds_addr)
    made.server.loaded.set()
    try:
        yield made
    finally:
        for envoy in made.envoys:
            await envoy.stop()
        await server.stop(0)


def public_descriptors() -> bytes:
    """The descriptor set of the public APIs."""
    import easel_proto.v1

    return (Path(next(iter(easel_proto.v1.__path__))) / "descriptors.binpb").read_bytes()
