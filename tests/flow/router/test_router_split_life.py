"""A split from its beginning to its end on a real router: weights, drains on both sides, and no request lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_contracts.spec import Match, Split
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, routes_pb2, routes_pb2_grpc

from .backends import Backend, backends
from .platform import KEY, Platform, platform

AUTH = {"authorization": "tok"}
TO_CANDIDATE = Match(kind="header", name="to", value="candidate")


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


async def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=AUTH | (headers or {})) as answer:
        return answer.status, await answer.text()


class Load:
    """Callers without a pause; what they were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: Counter[int] = Counter()
        self._stop = False

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for n in range(6):
                group.create_task(self._caller(session, "POST" if n % 2 else "GET"))

    async def _caller(self, session: aiohttp.ClientSession, method: str) -> None:
        while not self._stop:
            async with session.request(method, self._url + "/api/predict/ocr", headers=AUTH) as answer:
                await answer.read()
                self.answers[answer.status] += 1
            await asyncio.sleep(0.002)

    def stop(self) -> None:
        self._stop = True


async def cluster_names(easel: Platform) -> set[str]:
    """What the Envoy has of the service."""
    text = await easel.envoys[0].admin("/clusters")
    return {name for line in text.splitlines() if (name := line.split("::")[0]).startswith("ocr")}


async def told(easel: Platform, permille: int | None) -> None:
    await eventually(lambda: easel.routes("ocr")[-1].split_permille == permille)


async def test_a_canary_up_and_promoted_loses_no_request(easel: Platform, servers: list[Backend]) -> None:
    """Begun, moved, ended, the old revision drained, the second cluster gone: all answers are 200."""
    envoy, (old, new, _) = easel.envoys[0], servers
    await easel.service("ocr")
    stable = await easel.replica("ocr", old.port)
    await easel.applied("ocr", stable)
    load = Load(envoy.url)
    running = asyncio.create_task(load.run())
    await easel.service("ocr", "rollout_changed", revision=2, split=Split(weight_permille=0))
    await told(easel, 0)
    candidate = await easel.replica("ocr", new.port, revision=2)
    await easel.applied("ocr", stable, candidate)
    for permille in (100, 500, 900, 1000):
        await easel.service("ocr", "rollout_changed", revision=2, split=Split(weight_permille=permille))
        await told(easel, permille)
    assert await cluster_names(easel) == {"ocr", "ocr|candidate"}
    await easel.service("ocr", "rollout_changed", revision=2, rollout=True)
    await told(easel, None)
    await easel.replica("ocr", old.port, "draining")
    await eventually(lambda: easel.drained() == [stable])
    await easel.replica("ocr", old.port, "stopped")
    await easel.service("ocr", "rollout_changed", revision=2)
    await easel.applied("ocr", candidate)

    async def one_cluster() -> bool:
        return await cluster_names(easel) == {"ocr"}

    await eventually(one_cluster)
    load.stop()
    await running
    assert set(load.answers) == {200}
    assert load.answers[200] > 100


async def test_a_side_without_a_replica_has_no_weight(easel: Platform, servers: list[Backend]) -> None:
    """The weight wanted is there again with the replica; the route says what is live."""
    envoy, (old, new, _) = easel.envoys[0], servers
    split = Split(weight_permille=700, match=TO_CANDIDATE)
    await easel.service("ocr", revision=2, split=split)
    stable = await easel.replica("ocr", old.port)
    await easel.applied("ocr", stable)
    await told(easel, 0)
    assert '"b0"' in (await get(envoy.url, "/api/predict/ocr", {"to": "candidate"}))[1]
    candidate = await easel.replica("ocr", new.port, revision=2)
    await easel.applied("ocr", stable, candidate)
    await told(easel, 700)
    assert '"b1"' in (await get(envoy.url, "/api/predict/ocr", {"to": "candidate"}))[1]
    await easel.replica("ocr", old.port, "failed")
    await told(easel, 1000)
    await easel.replica("ocr", new.port, "failed", revision=2)
    await easel.holding("ocr")
    assert easel.routes("ocr")[-1].split_permille == 0


async def left_behind(easel: Platform, old: Backend, new: Backend) -> tuple[str, str, asyncio.Task[tuple[int, str]]]:
    """A request at the candidate of a split that has ended: (stable and candidate replica, the request)."""
    await easel.service("ocr", revision=2, split=Split(weight_permille=0, match=TO_CANDIDATE))
    stable = await easel.replica("ocr", old.port)
    candidate = await easel.replica("ocr", new.port, revision=2)
    await easel.applied("ocr", stable, candidate)
    running = asyncio.create_task(get(easel.envoys[0].url, "/api/predict/ocr/wait", {"to": "candidate"}))
    await eventually(lambda: new.active == 1)
    await easel.service("ocr", "rollout_changed", revision=2, rollout=True)
    await told(easel, None)
    return stable, candidate, running


async def test_drains_and_counts_see_the_second_cluster(easel: Platform, servers: list[Backend]) -> None:
    """A request at a candidate that drains is waited for, also when the split has ended meanwhile."""
    old, new, _ = servers
    stable, candidate, running = await left_behind(easel, old, new)
    await easel.replica("ocr", new.port, "draining", revision=2)
    await easel.applied("ocr", stable, draining=(candidate,))
    await asyncio.sleep(1)
    assert easel.drained() == []
    assert "ocr|candidate" in await cluster_names(easel)

    new.release()
    await eventually(lambda: easel.drained() == [candidate])
    assert (await running)[0] == 200


async def test_a_retry_after_the_end_of_the_split_finds_a_replica(easel: Platform, servers: list[Backend]) -> None:
    """Its cluster is left by every route and has the replicas of now."""
    old, new, _ = servers
    stable, _, running = await left_behind(easel, old, new)
    await easel.replica("ocr", new.port, "failed", revision=2)
    await easel.applied("ocr", stable)
    old.release()
    await new.stop()

    assert (await running)[0] == 200
    assert '"b0"' in (await running)[1]


async def test_a_split_that_an_envoy_refuses_leaves_nothing_behind(easel: Platform, servers: list[Backend]) -> None:
    """The last good route stays, without the second cluster; the next good change is taken."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    stable = await easel.replica("ocr", servers[0].port)
    candidate = await easel.replica("ocr", servers[1].port, revision=2)
    await easel.applied("ocr", stable, candidate)
    bad = Split(weight_permille=500, match=Match(kind="header", name="", value="x"))
    await easel.service("ocr", "rollout_changed", revision=2, split=bad)
    await eventually(lambda: easel.routes("ocr", "refused"))
    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 200

    async def one_cluster() -> bool:
        return await cluster_names(easel) == {"ocr"}

    await eventually(one_cluster)
    await easel.service("ocr", "rollout_changed", revision=2, split=Split(weight_permille=500))
    await told(easel, 500)

    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 200


async def test_the_route_says_the_split(easel: Platform, servers: list[Backend]) -> None:
    """Routes.Get by number, Explain in words."""
    split = Split(weight_permille=125, match=TO_CANDIDATE)
    await easel.service("ocr", revision=2, split=split)
    replicas = [await easel.replica("ocr", server.port, revision=1 + n) for n, server in enumerate(servers[:2])]
    await easel.applied("ocr", *replicas)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{easel.envoys[0].control_port}") as control:
        routes: Any = routes_pb2_grpc.RoutesStub(control)
        metadata = (("authorization", f"Bearer {KEY}"),)
        route = await routes.Get(routes_pb2.GetRouteRequest(workspace="default", name="ocr"), metadata=metadata)
        why = await routes.Explain(common_pb2.ExplainRequest(workspace="default", name="ocr"), metadata=metadata)
    said = {line.code: line.message for line in why.lines}

    assert route.split_permille == 125
    assert "12.5 % of the requests" in said["Split"]
    assert "header to=candidate" in said["Split"]
