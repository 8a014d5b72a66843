"""Compared answers in a real router: collector and API; what a restart or a change of sides does to a report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc
import grpc.aio
import pytest

from easel_contracts.facts import Rollout, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Resources, RevisionSpec
from easel_kit.grpc import channel
from easel_kit.testing import eventually
from easel_proto.internal.v1 import router_pb2_grpc
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc

from .platform import KEY, Platform, platform

NOT_YET = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
"""Its service, the access key, the router itself: what it has to be told of first."""
REQUEST = mirrors_pb2.ReportRequest(workspace="default", name="ocr")


def revision(number: int) -> RevisionSpec:
    return RevisionSpec(number=number, port=8000, resources=Resources(cpu=1, memory_mib=1))


class World:
    """A router with a service that is compared, and no replica: every copy is counted as not compared."""

    def __init__(self, easel: Platform, dsn: str) -> None:
        self.easel, self.socket, self.dsn = easel, easel.env["EASEL_ROUTER_SHADOW_ADDR"].removeprefix("unix:"), dsn

    async def service(self, number: int = 2, *, compare: Comparison | None = None, rolling: bool = True) -> None:
        """A rollout from the revision before."""
        self.easel.secrets.tokens["ocr"] = ("tok", 1)
        state = ServiceState(
            uid="u", name="ocr", generation=1, wanted="running", instance=1, revision=revision(number),
            rollout=Rollout(stable=revision(number - 1), share_percent=50) if rolling else None,
            mirroring=Mirroring(targets=(CANDIDATE,), percent=100, compare=compare or Comparison()),
        )  # fmt: skip
        await self.easel.tell("service", "updated", "ocr", state)

    async def secret(self) -> str:
        connection = await asyncpg.connect(self.dsn)
        try:
            return str(await connection.fetchval("SELECT secret FROM router.probe"))
        finally:
            await connection.close()

    async def stored(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM router.comparisons"))
        finally:
            await connection.close()

    async def copy(self) -> None:
        headers = {"x-easel-probe": await self.secret(), "x-easel-mirror": "ocr"}
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=self.socket)) as session:

            async def sent() -> bool:
                try:
                    async with session.post("http://shadow/x", headers=headers) as answer:
                        return answer.status == 202
                except aiohttp.ClientConnectorError:
                    return False  # the router has not begun to listen

            await eventually(sent)

    async def call(self, method: str = "Report") -> mirrors_pb2.ComparisonReport:
        async with channel(self.easel.env["EASEL_ROUTER_ADDR"]) as opened:
            stub: Any = mirrors_pb2_grpc.ComparisonsStub(opened)
            answer = await getattr(stub, method)(REQUEST, metadata=(("authorization", f"Bearer {KEY}"),), timeout=5)
        assert isinstance(answer, mirrors_pb2.ComparisonReport)
        return answer

    async def counted(self, **not_compared: int) -> mirrors_pb2.ComparisonReport:
        async def check() -> mirrors_pb2.ComparisonReport | None:
            try:
                found = await self.call()
            except grpc.aio.AioRpcError as error:
                if error.code() in NOT_YET:
                    return None
                raise
            return found if dict(found.not_compared) == not_compared else None

        found = await eventually(check)
        assert isinstance(found, mirrors_pb2.ComparisonReport)
        return found

    async def compared_since(self, before: mirrors_pb2.ComparisonReport) -> None:
        """Waits until a new report has begun."""

        async def check() -> bool:
            return (await self.call()).since.ToDatetime() > before.since.ToDatetime()

        await eventually(check)


@pytest.fixture
async def world(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[World]:
    async with platform(short_path, nats_url, postgres_dsn) as easel:
        yield World(easel, easel.env["EASEL_DB_DSN"])


async def test_a_report_outlives_a_kill_and_begins_anew_with_other_sides(world: World) -> None:
    await world.service()
    begun = await world.counted()
    assert (begun.target, begun.verdict) == (CANDIDATE, "not_enough_data")
    await world.copy()
    await world.counted(NoReplica=1)
    await eventually(world.stored)

    await world.easel.kill_router()
    await world.easel.start_router()
    assert (await world.counted(NoReplica=1)).since == begun.since
    await world.copy()
    before = await world.counted(NoReplica=2)

    await world.service(compare=Comparison(tolerance=0.1))  # other options
    await world.compared_since(before)
    await world.copy()
    before = await world.counted(NoReplica=1)
    await world.service(3)  # another revision
    await world.compared_since(before)
    assert not (await world.call()).not_compared

    await world.copy()
    await world.counted(NoReplica=1)
    await world.service(3, rolling=False)  # the rollout is over: what was compared stays to be read

    async def is_over() -> bool:
        return (await world.call()).message.endswith("nothing is compared now")

    await eventually(is_over)
    assert dict((await world.call()).not_compared) == {"NoReplica": 1}


async def test_reset_forgets_for_good(world: World) -> None:
    await world.service()
    await world.counted()
    await world.copy()
    await world.counted(NoReplica=1)
    await eventually(world.stored)
    assert not (await world.call("Reset")).not_compared

    async def gone() -> bool:
        return await world.stored() == 0

    await eventually(gone)


async def test_users_need_a_key_and_processes_their_token(world: World) -> None:
    await world.service()
    await world.counted()
    address = world.easel.env["EASEL_ROUTER_ADDR"]
    own = Path(world.easel.env["EASEL_PROCESS_TOKEN_FILE"]).read_text().strip()
    async with channel(address, own) as opened:
        public, internal = mirrors_pb2_grpc.ComparisonsStub(opened), router_pb2_grpc.ComparedStub(opened)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await public.Report(REQUEST, timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        found = await internal.Report(REQUEST, timeout=5)
        assert found.target == CANDIDATE
    async with channel(address, "guess") as opened:
        internal = router_pb2_grpc.ComparedStub(opened)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await internal.Report(REQUEST, timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with aiohttp.ClientSession() as session:  # by the control listener, as JSON
        url = f"{world.easel.envoys[0].control_url}/v1/services/ocr/mirror/report"

        async def answers() -> dict[str, Any] | None:
            try:
                async with session.get(url, headers={"authorization": f"Bearer {KEY}"}) as answer:
                    return await answer.json() if answer.status == 200 else None
            except aiohttp.ClientConnectorError:
                return None  # the Envoy is on its way

        assert (await eventually(answers))["verdict"] == "not_enough_data"
        async with session.get(f"{url.replace('ocr', 'nobody')}", headers={"authorization": f"Bearer {KEY}"}) as answer:
            assert answer.status == 404
