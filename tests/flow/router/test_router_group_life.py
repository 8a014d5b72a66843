"""A group's life on real stores and a real Envoy: facts in, its route live and told, members that come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from easel_contracts.facts import RouteState
from easel_contracts.spec import Split
from easel_kit.testing import eventually
from easel_router.testing import Envoy

from .backends import Backend, backends
from .platform import Platform, platform

AUTH = {"authorization": "group-tok"}


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


async def ask(envoy: Envoy, path: str = "/api/predict/vision/x", token: str = "group-tok") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(envoy.url + path, headers={"authorization": token}) as answer,
    ):
        if answer.status != 200:
            return answer.status, await answer.text()
        return 200, str((await answer.json())["name"])


async def serve(easel: Platform, servers: list[Backend], *names: str) -> list[str]:
    """Services with a replica each."""
    made = []
    for name, server in zip(names, servers, strict=False):
        await easel.service(name)
        made.append(await easel.replica(name, server.port))
        await easel.applied(name, made[-1])
    return made


async def told(easel: Platform, **expected: object) -> RouteState:
    """The newest route of the group, once it is as expected."""

    def check() -> RouteState:
        newest = easel.routes("vision")[-1:]
        assert newest, easel.router_log()[-2000:]
        assert {name: getattr(newest[0], name) for name in expected} == expected
        return newest[0]

    found = await eventually(check)
    assert isinstance(found, RouteState)
    return found


async def seen(envoy: Envoy, times: int = 30) -> Counter[str]:
    return Counter([(await ask(envoy))[1] for _ in range(times)])


@asynccontextmanager
async def asking(envoy: Envoy) -> AsyncIterator[Counter[str]]:
    """Requests to the group all the while; the answers, by server or by error."""
    answers: Counter[str] = Counter()

    async def run() -> None:
        async with aiohttp.ClientSession(headers=AUTH) as session:
            while True:
                async with session.get(envoy.url + "/api/predict/vision/x") as answer:
                    answers[(await answer.json())["name"] if answer.status == 200 else await answer.text()] += 1

    tasks = [asyncio.create_task(run()) for _ in range(4)]
    try:
        yield answers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_group_comes_changes_and_goes(easel: Platform, servers: list[Backend]) -> None:
    """Each is told once it is so everywhere; work is done for the groups of the service alone."""
    envoy = easel.envoys[0]
    await serve(easel, servers, "a", "b", "c")
    await easel.group("vision", "a", verb="created")
    await told(easel, token_version=1, envoys=1, split_permille=None)
    assert await seen(envoy) == {"b0": 30}
    await easel.group("vision", "a", "b")
    await eventually(lambda: len(easel.routes("vision")) == 2)
    assert set(await seen(envoy)) == {"b0", "b1"}
    await easel.replica("c", servers[2].port, "draining")
    await eventually(lambda: easel.routes("c")[-1].draining)
    assert len(easel.routes("vision")) == 2
    await easel.group("vision", "a", "b", token="fresh", version=2)
    await told(easel, token_version=2)
    assert (await ask(envoy))[0] == 401
    assert (await ask(envoy, token="fresh"))[0] == 200
    await easel.group("vision", "a", "b", verb="deleted")
    await eventually(lambda: easel.routes("vision", "removed"))

    assert (await ask(envoy, token="fresh"))[0] == 404
    assert (await ask(envoy, "/api/predict/vision.a", token="fresh"))[0] == 404
    assert (await ask(envoy, "/api/predict/a", token="tok"))[0] == 200


async def test_a_member_goes_and_nobody_notices(easel: Platform, servers: list[Backend]) -> None:
    """Stopped, then deleted, then the whole service of another: the rest answers every request."""
    envoy = easel.envoys[0]
    replicas = await serve(easel, servers, "a", "b", "c")
    await easel.group("vision", "a", "b", "c")
    await told(easel, envoys=1)
    async with asking(envoy) as answers:
        await eventually(lambda: set(answers) == {"b0", "b1", "b2"})
        await easel.replica("a", servers[0].port, "draining")
        await easel.service("a", "stopped", wanted="stopped")
        await eventually(lambda: easel.drained() == [replicas[0]])
        await easel.service("b", "updated", wanted="deleted")
        await eventually(lambda: easel.routes("b", "removed"))
        before = answers["b2"]
        await eventually(lambda: answers["b2"] > before + 50)

    assert set(answers) == {"b0", "b1", "b2"}


async def test_a_members_new_token_is_the_groups_business_too(easel: Platform, servers: list[Backend]) -> None:
    """Its own tokens open it in the group as well: the value of before does not, as soon as there is another."""
    envoy = easel.envoys[0]
    await serve(easel, servers, "a", "b")
    await easel.group("vision", "a", "b")
    await told(easel, envoys=1)
    assert (await ask(envoy, "/api/predict/vision.a", token="tok"))[0] == 200
    await easel.service("a", "updated", token="fresh", version=2)

    async def rotated() -> bool:
        return (await ask(envoy, "/api/predict/vision.a", token="tok"))[0] == 401

    await eventually(rotated)
    assert (await ask(envoy, "/api/predict/vision.a", token="fresh"))[0] == 200
    assert (await ask(envoy, "/api/predict/vision.b", token="tok"))[0] == 200


async def test_a_group_outlives_a_restart(easel: Platform, servers: list[Backend]) -> None:
    """With control away: the tokens and shares of before, at once; and what changed meanwhile."""
    envoy = easel.envoys[0]
    await serve(easel, servers, "a", "b")
    await easel.group("vision", "a", "b", split=Split(weight_permille=0), candidate="b")
    await told(easel, split_permille=0)
    assert await seen(envoy) == {"b0": 30}
    await asyncio.sleep(0.5)  # the file is written a moment later
    await easel.stop_control()
    async with asking(envoy) as answers:
        await easel.kill_router()
        await easel.group("vision", "a", "b", split=Split(weight_permille=1000), candidate="b")
        await easel.start_router()
        await told(easel, split_permille=1000)
        before = answers["b1"]
        await eventually(lambda: answers["b1"] > before + 50)

    assert set(answers) == {"b0", "b1"}
    assert await seen(envoy) == {"b1": 30}


async def test_a_restart_without_the_file(easel: Platform, servers: list[Backend]) -> None:
    """Control tells the tokens again before an Envoy may ask: nobody sees a group without its route."""
    envoy = easel.envoys[0]
    await serve(easel, servers, "a")
    await easel.group("vision", "a")
    await told(easel, envoys=1)
    async with asking(envoy) as answers:
        await easel.kill_router()
        for file in easel.path.rglob("last-good.jsonl"):
            file.unlink()
        await easel.start_router()
        await easel.group("vision", "a", version=2)
        await told(easel, token_version=2)

    assert set(answers) == {"b0"}
