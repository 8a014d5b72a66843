"""From a caller's request to the report: a real Envoy copies, a real router replays and compares."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from easel_contracts.facts import Rollout, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Resources, RevisionSpec
from easel_kit.grpc import channel
from easel_kit.testing import eventually
from easel_proto.internal.v1 import router_pb2_grpc
from easel_proto.v1 import mirrors_pb2

from .platform import Platform, platform

pytestmark = pytest.mark.timeout(180)

AUTH = {"authorization": "tok"}
Answer = Callable[[], Any]


class Model:
    """A model server that answers what it is told to, and keeps what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.port = answer, 0
        self.seen: list[tuple[str, str, bytes, dict[str, str]]] = []
        """Method, path with query, body, headers."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.method, request.raw_path, await request.read(), headers))
        return web.json_response(self.answer())


@asynccontextmanager
async def model(answer: Answer) -> AsyncIterator[Model]:
    made, app = Model(answer), web.Application()
    app.router.add_route("*", "/{rest:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def labelled(label: str, times: Iterator[int]) -> Answer:
    """An answer with a time in it that is never the same."""
    return lambda: {"label": label, "boxes": [{"x": 1}], "at": next(times)}


class World:
    """A router, an Envoy, and two model servers that differ in one field."""

    def __init__(self, easel: Platform, stable: Model, candidate: Model) -> None:
        self.easel, self.stable, self.candidate = easel, stable, candidate

    async def rolling(self, **how: Any) -> None:
        """`ocr` on the way from revision 1 to 2, with every request copied."""
        before, after = (RevisionSpec(number=n, port=1, resources=Resources(cpu=1, memory_mib=1)) for n in (1, 2))
        state = ServiceState(
            uid="u", name="ocr", generation=1, wanted="running", instance=1, revision=after,
            rollout=Rollout(stable=before, share_percent=50), mirroring=self._mirroring(CANDIDATE, how),
        )  # fmt: skip
        self.easel.secrets.tokens["ocr"] = ("tok", 1)
        await self.easel.tell("service", "updated", "ocr", state)
        replicas = [
            await self.easel.replica("ocr", self.stable.port),
            await self.easel.replica("ocr", self.candidate.port, revision=2),
        ]
        await self.easel.applied("ocr", *replicas)

    async def beside(self, **how: Any) -> None:
        """`ocr` mirrored to another service, `next`."""
        await self.easel.service("next")
        await self.easel.applied("next", await self.easel.replica("next", self.candidate.port))
        state = ServiceState(
            uid="u", name="ocr", generation=1, wanted="running", instance=1,
            revision=RevisionSpec(number=1, port=1, resources=Resources(cpu=1, memory_mib=1)),
            mirroring=self._mirroring("next", how),
        )  # fmt: skip
        self.easel.secrets.tokens["ocr"] = ("tok", 1)
        await self.easel.tell("service", "updated", "ocr", state)
        await self.easel.applied("ocr", await self.easel.replica("ocr", self.stable.port))

    async def ask(self, times: int) -> None:
        url = f"{self.easel.envoys[0].url}/api/predict/ocr/v1/read?page=3"
        async with aiohttp.ClientSession() as session:
            for _ in range(times):
                async with session.post(url, json={"q": 1}, headers=AUTH) as answer:
                    assert answer.status == 200

    async def report(self) -> mirrors_pb2.ComparisonReport:
        own = Path(self.easel.env["EASEL_PROCESS_TOKEN_FILE"]).read_text().strip()
        async with channel(self.easel.env["EASEL_ROUTER_ADDR"], own) as opened:
            found = await router_pb2_grpc.ComparedStub(opened).Report(mirrors_pb2.ReportRequest(name="ocr"), timeout=5)
        assert isinstance(found, mirrors_pb2.ComparisonReport)
        return found

    async def sampled(self, at_least: int) -> mirrors_pb2.ComparisonReport:
        """Asks until so many samples are compared."""

        async def check() -> mirrors_pb2.ComparisonReport | None:
            await self.ask(5)
            found = await self.report()
            return found if found.samples >= at_least else None

        found = await eventually(check, 60)
        assert isinstance(found, mirrors_pb2.ComparisonReport)
        return found

    def _mirroring(self, target: str, how: dict[str, Any]) -> Mirroring:
        compare = Comparison(**{"samples_per_s": 100.0, "twice_percent": 100.0, **how})
        return Mirroring(targets=(target,), percent=100, compare=compare)


@pytest.fixture
async def world(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[World]:
    times = itertools.count()
    async with AsyncExitStack() as stack:
        stable = await stack.enter_async_context(model(labelled("cat", times)))
        candidate = await stack.enter_async_context(model(labelled("dog", times)))
        easel = await stack.enter_async_context(platform(short_path, nats_url, postgres_dsn))
        yield World(easel, stable, candidate)


async def test_a_revision_that_answers_otherwise_is_found_by_the_field(world: World) -> None:
    """The label differs; the time differs from itself, too, and is no finding. Callers see nothing of it."""
    await world.rolling()
    found = await world.sampled(40)

    assert (found.verdict, found.target) == ("differs", CANDIDATE)
    assert found.message.startswith("body.label differs in ")
    assert found.message.endswith(f"stable differs from itself in 0 of {found.twice}")
    counts = {field.path: (field.differ, field.differ_from_itself) for field in found.fields}
    assert counts == {"body.label": (found.samples, 0), "body.at": (found.samples, found.twice)}
    assert found.twice == found.samples
    (first, *_) = found.fields[0].examples
    assert (first.stable, first.candidate) == ('"cat"', '"dog"')
    assert first.request == 'POST /v1/read?page=3\n{"q": 1}'
    assert found.stable_p50_ms > 0 < found.candidate_p50_ms
    for served in (world.stable, world.candidate):
        replayed = [seen for seen in served.seen if "x-easel-mirrored" in seen[3]]
        assert len(replayed) >= found.samples
        for method, path, body, headers in replayed:
            assert (method, path, body) == ("POST", "/v1/read?page=3", b'{"q": 1}')
            assert not {"authorization", "x-easel-probe", "x-easel-arm", "x-easel-mirror"} & headers.keys()
            assert headers["content-type"] == "application/json"


async def test_another_service_is_compared_without_a_rollout(world: World) -> None:
    """Options that ignore the time, and a service that answers the same but for the label."""
    await world.beside(ignore=("at",))
    found = await world.sampled(5)
    assert found.target == "next"
    assert {field.path: field.differ for field in found.fields} == {"body.label": found.samples}
    assert found.differ_from_itself == 0


async def test_a_candidate_that_is_gone_costs_callers_nothing(world: World) -> None:
    await world.rolling()
    await world.sampled(3)
    await world.easel.replica("ocr", world.candidate.port, "failed", revision=2)
    await world.easel.applied("ocr", f"ocr-1-{world.stable.port}")

    async def check() -> bool:
        await world.ask(3)
        return (await world.report()).not_compared["NoReplica"] > 0

    await eventually(check)
