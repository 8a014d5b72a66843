"""A router alone before a real Envoy, NATS and PostgreSQL, with many services that have replicas.

The benchmark speaks for the other processes (as the router's flow tests do) and hears what the router tells. Most
services of a fleet have replicas: here each has one or two, on a few model servers that answer.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nats
import psutil
from nats.aio.msg import Msg

from easel_contracts import facts
from easel_contracts.facts import RouteState
from easel_router.testing import Envoy
from tests.flow.router.backends import Backend, backends
from tests.flow.router.platform import Platform, platform

BACKENDS = 4
AT_ONCE = 64
"""Facts published at a time while the fleet is made."""
MIB = 1024 * 1024


class Routes:
    """The newest route that the router told of each service; who waits for one is woken by it."""

    def __init__(self) -> None:
        self.newest: dict[str, RouteState] = {}
        self.at_s: dict[str, float] = {}
        """time.perf_counter() when it was heard of."""
        self._news = asyncio.Event()

    async def heard(self, message: Msg) -> None:
        fact = facts.decode(message.data)
        self.newest[fact.key] = facts.state_of(fact, RouteState)
        self.at_s[fact.key] = time.perf_counter()
        self._news.set()
        self._news = asyncio.Event()

    async def have(self, wanted: dict[str, set[str]], timeout_s: float = 60.0) -> None:
        """Returns once each service's newest route has exactly these replicas."""
        left = dict(wanted)
        async with asyncio.timeout(timeout_s):
            while True:
                left = {name: of for name, of in left.items() if not self._has(name, of)}
                if not left:
                    return
                await self._news.wait()

    async def until(self, service: str, holds: Callable[[RouteState], bool], timeout_s: float = 60.0) -> RouteState:
        """The service's newest route, once that holds of it."""
        async with asyncio.timeout(timeout_s):
            while True:
                route = self.newest.get(service)
                if route is not None and holds(route):
                    return route
                await self._news.wait()

    def _has(self, service: str, replicas: set[str]) -> bool:
        route = self.newest.get(service)
        return route is not None and set(route.replicas) == replicas


class Fleet:
    """So many services, made one after the other by facts."""

    def __init__(self, easel: Platform, servers: list[Backend], routes: Routes) -> None:
        self.easel, self.routes = easel, routes
        self._servers = servers
        self.replicas: dict[str, set[str]] = {}
        """Service → its replicas that are ready."""

    @property
    def envoy(self) -> Envoy:
        """The one Envoy."""
        return self.easel.envoys[0]

    def port(self, number: int) -> int:
        """Where the n-th replica of all listens."""
        return self._servers[number % len(self._servers)].port

    async def make(self, count: int) -> float:
        """Makes services `svc0`, `svc1`, ...; seconds from the first fact until the last route is told."""
        began = time.perf_counter()
        numbers = iter(range(count))
        await asyncio.gather(*(self._make_some(numbers) for _ in range(AT_ONCE)))
        await self.routes.have(self.replicas, timeout_s=600)
        took_s = time.perf_counter() - began
        gc.collect()
        gc.freeze()  # what this process remembers of the facts is not to pause what it measures
        return took_s

    async def add(self, name: str, number: int) -> float:
        """A replica more, on the n-th server; perf_counter() just before its fact was published."""
        at_s = time.perf_counter()
        self.replicas[name].add(await self.easel.replica(name, self.port(number)))
        return at_s

    async def take(self, name: str, number: int) -> float:
        """A replica less; perf_counter() just before its fact was published."""
        at_s = time.perf_counter()
        self.replicas[name].discard(await self.easel.replica(name, self.port(number), "stopped"))
        return at_s

    def rss_mib(self) -> dict[str, tuple[float, float]]:
        """Process → (resident memory now, its highest so far), in MiB."""
        router = next(p for p in psutil.Process().children() if "easel_router" in p.cmdline())
        return {"router": _rss_mib(router.pid), "Envoy": _rss_mib(self.envoy.pid)}

    async def _make_some(self, numbers: Iterable[int]) -> None:
        for n in numbers:
            name = f"svc{n}"
            self.replicas[name] = set()
            await self.easel.service(name)
            for second in range(1 + n % 2):
                await self.add(name, n + second)


@asynccontextmanager
async def fleet(path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Fleet]:
    """Without services yet."""
    routes = Routes()
    async with platform(path, nats_url, postgres_dsn) as easel, backends(BACKENDS) as servers:
        bus = await nats.connect(nats_url)
        try:
            await bus.subscribe("easel.fact.*.route.>", cb=routes.heard)
            yield Fleet(easel, servers, routes)
        finally:
            await bus.close()


def _rss_mib(pid: int) -> tuple[float, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, highest = (int(fields[name].split()[0]) * 1024 / MIB for name in ("VmRSS", "VmHWM"))
    return now, highest
