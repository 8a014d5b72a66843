"""Mirrors on a real router: targets come, go, stop and are deleted; the source's callers notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_contracts.spec import CANDIDATE, Mirroring
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, routes_pb2_grpc

from .backends import Backend, backends
from .platform import KEY, Platform, platform

AUTH = {"authorization": "tok"}
TO_COPY = Mirroring(targets=("copy",), percent=100)


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


async def ask(easel: Platform, path: str = "") -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(easel.envoys[0].url + "/api/predict/ocr" + path, headers=AUTH, data=b"x") as answer,
    ):
        await answer.read()
        return answer.status


async def copied(easel: Platform, target: Backend) -> None:
    """Waits until a request's copy comes there."""

    async def one_more() -> bool:
        before = target.executions.total()
        assert await ask(easel) == 200
        await asyncio.sleep(0.05)
        return target.executions.total() > before

    await eventually(one_more)


async def clusters(easel: Platform, service: str) -> set[str]:
    text = await easel.envoys[0].admin("/clusters")
    return {name for line in text.splitlines() if (name := line.split("::")[0]).partition("|")[0] == service}


async def test_a_target_comes_and_goes(easel: Platform, servers: list[Backend]) -> None:
    """Unknown, without a replica, with one, another, none, deleted: every request of the source is answered."""
    source, first, second = servers
    await easel.service("ocr", mirroring=TO_COPY)
    await easel.applied("ocr", await easel.replica("ocr", source.port))
    assert [await ask(easel) for _ in range(5)] == [200] * 5
    routes = len(easel.routes("ocr"))

    await easel.service("copy")
    assert await ask(easel) == 200
    await easel.applied("copy", await easel.replica("copy", first.port))
    await copied(easel, first)
    await easel.replica("copy", first.port, "draining")
    await easel.applied("copy", await easel.replica("copy", second.port), draining=(f"copy-1-{first.port}",))
    await copied(easel, second)
    await eventually(lambda: easel.drained() == [f"copy-1-{first.port}"])
    for port in (first.port, second.port):
        await easel.replica("copy", port, "stopped")
    await easel.holding("copy")
    assert [await ask(easel) for _ in range(5)] == [200] * 5
    await easel.service("copy", "updated", wanted="deleted")
    await eventually(lambda: easel.routes("copy", "removed"))
    assert [await ask(easel) for _ in range(5)] == [200] * 5

    assert len(easel.routes("ocr")) == routes  # a target's life is not its source's
    assert not easel.held or {held.service for held in easel.held} == {"copy"}


async def test_a_mirror_begins_and_ends(easel: Platform, servers: list[Backend]) -> None:
    """The target has a cluster for copies for as long as somebody mirrors to it."""
    source, target, _ = servers
    await easel.service("ocr")
    await easel.service("copy")
    await easel.applied("ocr", await easel.replica("ocr", source.port))
    await easel.applied("copy", await easel.replica("copy", target.port))
    assert await clusters(easel, "copy") == {"copy"}
    await easel.service("ocr", "updated", mirroring=TO_COPY)
    await copied(easel, target)
    assert await clusters(easel, "copy") == {"copy", "copy|shadow"}
    await easel.service("ocr", "updated")

    async def over() -> bool:
        return await clusters(easel, "copy") == {"copy"}

    await eventually(over)
    before = target.executions.total()
    assert [await ask(easel) for _ in range(5)] == [200] * 5
    assert target.executions.total() == before


async def test_the_candidate_of_a_rollout(easel: Platform, servers: list[Backend]) -> None:
    """Gets copies while there is one."""
    stable, candidate, _ = servers
    to_candidate = Mirroring(targets=(CANDIDATE,), percent=100)
    await easel.service("ocr", mirroring=to_candidate)
    first = await easel.replica("ocr", stable.port)
    await easel.applied("ocr", first)
    assert await ask(easel) == 200
    await easel.service("ocr", "rollout_changed", revision=2, rollout=True, mirroring=to_candidate)
    second = await easel.replica("ocr", candidate.port, revision=2)
    await easel.applied("ocr", first, second)

    async def twice() -> bool:
        """A request of the stable replica is also one of the candidate's."""
        before = candidate.executions["/both"]
        assert await ask(easel, "/both") == 200
        await asyncio.sleep(0.05)
        return candidate.executions["/both"] > before and stable.executions["/both"] > 0

    await eventually(twice)
    assert await clusters(easel, "ocr") == {"ocr", "ocr|candidate|shadow"}
    await easel.service("ocr", "rollout_changed", revision=2, mirroring=to_candidate)

    async def over() -> bool:
        return await clusters(easel, "ocr") == {"ocr"}

    await eventually(over)


async def test_explain_says_who_gets_copies(easel: Platform, servers: list[Backend]) -> None:
    """How many, who, and what becomes of the answers."""
    await easel.service("ocr", mirroring=Mirroring(targets=("copy", "other"), percent=12.5))
    await easel.applied("ocr", await easel.replica("ocr", servers[0].port))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{easel.envoys[0].control_port}") as control:
        routes: Any = routes_pb2_grpc.RoutesStub(control)
        metadata = (("authorization", f"Bearer {KEY}"),)
        why = await routes.Explain(common_pb2.ExplainRequest(workspace="default", name="ocr"), metadata=metadata)

    assert (
        "12.5 % of the requests are copied to copy, other"
        in {line.code: line.message for line in why.lines}["Mirrored"]
    )
