"""Counts of a canary: from Envoy's access log over gRPC to control; a restart keeps them; nobody else may ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from aiohttp import web

from easel_contracts.metrics import latency_bin
from easel_contracts.spec import Match, Split
from easel_kit.grpc import TOKEN_HEADER, channel
from easel_kit.grpc_errors import from_rpc
from easel_kit.testing import eventually, free_port
from easel_monitor.envoy_metrics_pb2 import StreamAccessLogsMessage
from easel_proto.internal.v1 import monitor_pb2, monitor_pb2_grpc
from easel_router.testing import PROCESS_TOKEN, a_plan
from easel_router.testing import rig as xds_rig
from tests.flow.monitor.rig import Rig, monitor, surroundings
from tests.unit.monitor.requests_log import entry

TO_CANDIDATE = Match(kind="header", name="to", value="candidate")
SLOW_S = 0.2
METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


async def send(rig: Rig, *messages: StreamAccessLogsMessage, token: str = PROCESS_TOKEN) -> None:
    """As an Envoy whose stream then ends; returns when the monitor has read everything."""
    opened = channel(rig.environment["EASEL_MONITOR_SINK_ADDR"])
    try:
        call: Any = opened.stream_unary(METHOD, None, None)

        async def all_of() -> AsyncIterator[bytes]:
            for message in messages:
                yield message.SerializeToString()

        assert await call(all_of(), metadata=((TOKEN_HEADER, token),)) == b""
    finally:
        await opened.close(None)


async def read(rig: Rig, path: Path, after_unix_s: int = 0, process: str = "control", **more: str) -> Any:
    opened = channel(rig.environment["EASEL_MONITOR_ADDR"], (path / f"{process}.token").read_text())
    try:
        stub: Any = monitor_pb2_grpc.CountsStub(opened)
        request = {"subject": "c1", **more}
        return await stub.Read(monitor_pb2.ReadCountsRequest(after_unix_s=after_unix_s, **request))
    finally:
        await opened.close(None)


async def total(rig: Rig, path: Path, requests: int) -> Any:
    """The answer, when so many requests are in seconds that are over."""
    for _ in range(400):
        answer = await read(rig, path)
        if sum(s.requests for s in answer.seconds) >= requests:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"never {requests} requests: {answer}")


def a_message(stable: int, candidate_errors: int) -> StreamAccessLogsMessage:
    message = StreamAccessLogsMessage()
    for _ in range(stable):
        entry(message)
    for _ in range(candidate_errors):
        entry(message, arm="candidate", status=503)
    entry(message, subject="other")
    return message


async def test_counts_reach_control_and_outlive_a_restart(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    async with surroundings(short_path, nats_url, postgres_dsn) as rig:
        async with monitor(rig):
            await send(rig, a_message(5, 2), a_message(1, 0))
            before = await total(rig, short_path, 8)
            arms = {"stable": [0, 0, 0], "candidate": [0, 0, 0]}
            for second in before.seconds:
                arms[second.arm][0] += second.requests
                arms[second.arm][1] += second.errors
                arms[second.arm][2] += second.latency_bins.get(latency_bin(20.0), 0)
            assert arms == {"stable": [6, 0, 6], "candidate": [2, 2, 0]}
            assert before.final_through_unix_s >= max(s.unix_s for s in before.seconds)
            await send(rig, a_message(3, 0))  # of the running second when the monitor ends
        async with monitor(rig):
            after = await total(rig, short_path, 11)
            seen = [s for s in after.seconds if s.unix_s <= before.final_through_unix_s]
            assert seen == list(before.seconds)
            last = after.final_through_unix_s
            await send(rig, a_message(4, 0))
            await eventually(lambda: rig.process.clock.now().timestamp() > last + 3)
            newer = await read(rig, short_path, last)
            assert sum(s.requests for s in newer.seconds) == 4


async def answer(request: web.Request) -> web.Response:
    """A model server: /NNN answers that status."""
    status = request.path.rpartition("/")[2]
    await asyncio.sleep(SLOW_S if "slow" in request.path else 0)
    return web.Response(status=int(status) if status.isdigit() else 200, text="ok")


@asynccontextmanager
async def models(count: int) -> AsyncIterator[list[int]]:
    runners, ports = [], []
    for _ in range(count):
        app = web.Application()
        app.add_routes([web.get("/{tail:.*}", answer)])
        runners.append(web.AppRunner(app, shutdown_timeout=0.1))
        await runners[-1].setup()
        ports.append(free_port())
        await web.TCPSite(runners[-1], "127.0.0.1", ports[-1]).start()
    try:
        yield ports
    finally:
        for runner in runners:
            await runner.cleanup()


async def test_a_real_envoy_tells_what_both_sides_answered(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Every answer of a replica, the model's errors and what is slow, by side; what Envoy refused is not counted."""
    split = Split(weight_permille=0, match=TO_CANDIDATE, subject="c1")
    async with (
        surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), models(2) as (one, two),
        xds_rig(short_path / "xds") as xds, aiohttp.ClientSession() as client,
    ):  # fmt: skip
        envoy = await xds.envoy(sink_addr=rig.environment["EASEL_MONITOR_SINK_ADDR"])
        await xds.acknowledged(xds.put(a_plan("ocr", one, candidates=(two,), split=split)))

        async def get(path: str, **headers: str) -> int:
            url = f"{envoy.url}/api/predict/ocr{path}"
            async with client.get(url, headers={"authorization": "tok", **headers}) as answered:
                return answered.status

        for _ in range(6):
            assert await get("/fine") == 200
        for status in (404, 429, 500):
            assert await get(f"/{status}", to="candidate") == status
        assert await get("/slow", to="candidate") == 200
        assert await get("/fine", authorization="wrong", to="candidate") == 401
        answer = await total(rig, short_path, 10)

    counted = {arm: [s for s in answer.seconds if s.arm == arm] for arm in ("stable", "candidate")}
    assert {arm: (sum(s.requests for s in seconds), sum(s.errors for s in seconds))
            for arm, seconds in counted.items()} == {"stable": (6, 0), "candidate": (4, 1)}  # fmt: skip
    bins = sorted(number for s in counted["candidate"] for number, n in s.latency_bins.items() for _ in range(n))
    assert len(bins) == 3
    assert bins[-1] >= latency_bin(1000 * SLOW_S)
    assert bins[0] < latency_bin(1000 * SLOW_S)


async def test_only_control_may_ask(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        for process in ("router", "agent"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(rig, short_path, process=process)
            assert from_rpc(refused.value).code == "NOT_FOR_YOU"
        with pytest.raises(grpc.aio.AioRpcError) as wrong:
            await read(rig, short_path, subject="")
        assert "subject" in from_rpc(wrong.value).message
        with pytest.raises(grpc.aio.AioRpcError) as elsewhere:
            await read(rig, short_path, workspace="another")
        assert "another" in from_rpc(elsewhere.value).message
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await send(rig, a_message(1, 0), token="x")
        assert stranger.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert not (await read(rig, short_path)).seconds


async def test_long_histories_come_in_pieces(
    short_path: Path, nats_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole seconds, and final only through what was told."""
    monkeypatch.setattr("easel_monitor.counts_api.ROWS_MOST", 5)
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig) as process:
        await process.db.pool.executemany(
            "INSERT INTO arm_seconds VALUES ('default', 'c1', $1, $2, 1, 0, '\\x80')",
            [(1000 + n, arm) for n in range(4) for arm in ("stable", "candidate")],
        )
        first = await read(rig, short_path)
        assert [s.unix_s for s in first.seconds] == [1000, 1000, 1001, 1001]
        assert first.final_through_unix_s == 1001
        rest = await read(rig, short_path, first.final_through_unix_s)
        assert [s.unix_s for s in rest.seconds] == [1002, 1002, 1003, 1003]
        assert rest.final_through_unix_s > 1003
