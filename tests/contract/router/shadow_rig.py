"""The shadow collector between a gateway in this process and the services that it replays to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from easel_contracts.facts import Endpoint, ReplicaState, Rollout, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Resources, RevisionSpec
from easel_kit.clock import SystemClock
from easel_kit.db import Database
from easel_kit.testing import eventually
from easel_router.comparisons import Comparisons, Report
from easel_router.model import Known
from easel_router.replay import Budget, Replayer
from easel_router.shadow import MOST_BYTES, Collector
from easel_router.shadow_server import ShadowServer

SECRET = "hush"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """What an Envoy's probe listener is to the collector."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        """(arm, method, path with query)."""
        self.headers: list[CIMultiDict[str]] = []
        self.bodies: list[bytes] = []
        self.active = self.most = 0
        self.answer: Handler = ok

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["x-easel-probe"] == SECRET
        self.calls.append((request.headers["x-easel-arm"], request.method, request.raw_path))
        self.headers.append(CIMultiDict(request.headers))
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            self.bodies.append(await request.read())
            return await self.answer(request)
        finally:
            self.active -= 1


async def ok(request: web.Request) -> web.StreamResponse:
    return web.json_response({"label": "cat"})


def by_arm(stable: Any, candidate: Any) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(candidate if request.headers["x-easel-arm"] == "candidate" else stable)

    return answer


class Rig:
    """A collector and what is around it."""

    def __init__(self, path: Path) -> None:
        self.socket, self.gateway = path / "shadow.sock", Gateway()
        self.known = Known("default", ())
        self.comparisons = Comparisons(self.known, cast("Database", None), SystemClock(), "default")
        self.addresses = {"envoy-0": f"unix:{path}/probe.sock"}
        self.budget = Budget(MOST_BYTES)
        self.replayer = Replayer(lambda: self.addresses, SECRET, SystemClock(), self.budget)
        self.collector = Collector(
            self.known, self.comparisons, self.replayer, self.budget, SystemClock(), random.Random(1)
        )
        self.server = ShadowServer(f"unix:{self.socket}", SECRET, self.collector)

    def service(self, name: str = "ocr", candidate: str = CANDIDATE, **how: Any) -> None:
        """A service in a rollout from revision 1 to 2, compared."""
        old, new = (RevisionSpec(number=n, port=1, resources=Resources(cpu=1, memory_mib=1)) for n in (1, 2))
        how = {"samples_per_s": 1000.0, "twice_percent": 0.0} | how
        rollout = Rollout(stable=old, share_percent=50) if candidate == CANDIDATE else None
        self.known.take_service(
            ServiceState(
                uid=name, name=name, generation=1, wanted="running", instance=1, revision=new if rollout else old,
                rollout=rollout, mirroring=Mirroring(targets=(candidate,), percent=100, compare=Comparison(**how)),
            )
        )  # fmt: skip
        for number in (1, 2) if rollout else (1,):
            self.replica(name, number)

    def replica(self, service: str, revision: int, state: str = "ready") -> None:
        endpoint = Endpoint(network="host", ip="127.0.0.1", port=revision)
        self.known.take_replica(
            ReplicaState(id=f"{service}-1-{revision}", service=service, revision=revision, generation=1, state=state,
                         endpoints=(endpoint,))
        )  # fmt: skip

    async def copy(
        self, path: str = "/", body: Any = b"", *, method: str = "POST", service: str = "ocr", **headers: str
    ) -> int:
        """Sends a copy as Envoy does."""
        given = {"x-easel-probe": SECRET, "x-easel-mirror": service, "host": "a.test"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connector = aiohttp.UnixConnector(path=str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://shadow{path}", data=body, headers=given) as answer,
        ):
            return answer.status

    def report(self, service: str = "ocr") -> Report:
        found = self.comparisons.report(service)
        assert found is not None
        return found

    async def counted(self, samples: int, **not_compared: int) -> Report:
        def check() -> Report:
            report = self.report()
            assert (report.tally.samples, report.tally.not_compared) == (samples, not_compared)
            return report

        found = await eventually(check)
        assert isinstance(found, Report)
        return found


@asynccontextmanager
async def served(handler: Handler, path: str) -> AsyncIterator[None]:
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    try:
        yield
    finally:
        await runner.cleanup()
