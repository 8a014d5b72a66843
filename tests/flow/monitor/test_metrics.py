"""Metrics from a real Envoy and an agent's messages: published, kept, served, and there again after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc.aio
import msgspec
import pytest
from aiohttp import web

from easel_contracts.metrics import ReplicaMetrics, ServiceMetrics
from easel_contracts.spec import GatewayPolicy
from easel_kit.grpc_errors import from_rpc
from easel_kit.testing import eventually, free_port
from easel_proto.v1.common_pb2 import ExplainRequest
from easel_proto.v1.metrics_pb2 import GetMetricsRequest, MetricsWindow, WatchMetricsRequest
from easel_router.testing import Envoy, a_plan
from easel_router.testing import rig as xds_rig
from tests.flow.monitor.rig import METADATA, Rig, monitor, surroundings

SLOW_S = 0.2


async def answer(request: web.Request) -> web.Response:
    """A model server: /slow takes SLOW_S, /late never answers in time, /NNN answers that status."""
    if request.path == "/slow":
        await asyncio.sleep(SLOW_S)
    if request.path == "/late":
        await asyncio.sleep(3)
    status = int(request.path[1:]) if request.path[1:].isdigit() else 200
    return web.Response(status=status, text="ok")


@asynccontextmanager
async def model() -> AsyncIterator[int]:
    app = web.Application()
    app.add_routes([web.get("/{tail:.*}", answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def envoy(
    rig: Rig, path: Path, *ports: int, keepalive_ms: int = 1000, gateway: GatewayPolicy | None = None
) -> AsyncIterator[Envoy]:
    """An Envoy with the router's own configuration, that reports to the monitor."""
    async with xds_rig(path / "xds") as xds:
        xds.put(a_plan("ocr", *ports, keepalive_ms=keepalive_ms, gateway=gateway or GatewayPolicy()))
        yield await xds.envoy(sink_addr=rig.environment["EASEL_MONITOR_SINK_ADDR"])


async def get(rig: Rig, window_s: int = 60) -> MetricsWindow:
    found: MetricsWindow = await rig.metrics.Get(GetMetricsRequest(name="ocr", window_s=window_s), metadata=METADATA)
    return found


async def call(at: Envoy, path: str, times: int = 1, token: str = "tok") -> list[int]:
    async with aiohttp.ClientSession(headers={"authorization": token}) as session:

        async def one() -> int:
            async with session.get(f"{at.url}/api/predict/ocr/{path}") as answered:
                return answered.status

        return await asyncio.gather(*(one() for _ in range(times)))


async def heard(rig: Rig) -> list[ServiceMetrics]:
    """Collects what the monitor publishes."""
    seen: list[ServiceMetrics] = []
    subscription = await rig.client.subscribe("easel.metric.default.service.ocr")

    async def collect() -> None:
        async for message in subscription.messages:
            seen.append(msgspec.msgpack.decode(message.data, type=ServiceMetrics))

    rig.tasks.append(asyncio.create_task(collect()))
    return seen


def total(seen: list[ServiceMetrics], code: str) -> int:
    return sum(second.requests_by_code.get(code, 0) for second in seen)


async def test_every_request_is_counted_once_with_its_latency(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Sums of the published seconds equal what clients saw, by class; quantiles lie in the right bucket."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), model() as port:
        await rig.service()
        seen = await heard(rig)
        async with envoy(rig, short_path, port) as gateway:
            await eventually(lambda: bool(seen))
            assert set(await call(gateway, "", 100)) == {200}
            assert set(await call(gateway, "slow", 40)) == {200}
            assert set(await call(gateway, "404", 5)) == {404}
            assert set(await call(gateway, "500", 3)) == {500}
            await eventually(lambda: total(seen, "5xx") == 3 and total(seen, "4xx") == 5)

            assert total(seen, "2xx") == 140
            assert sum(sum(second.latency_counts) for second in seen) == 148
            assert seen[-1].replicas_ready == 1
            window = await eventually(lambda: counted(rig, {"2xx": 140, "4xx": 5, "5xx": 3}))
            # SLOW_S lies in the bucket above 140 ms; 40 of 148 requests took at least that long.
            assert window.summary.latency_p99_ms > 140
            assert window.summary.latency_p50_ms < window.summary.latency_p99_ms
            assert window.summary.HasField("qps")
            assert not window.summary.HasField("cpu_cores")


async def counted(rig: Rig, requests: dict[str, int]) -> MetricsWindow | None:
    """The window once it holds these answers. Rates are over the time measured, which no test knows: their ratios are
    those of the counts."""
    window = await get(rig)
    rates = window.summary.qps_by_code
    shares = {code: rates[code] / sum(rates.values()) for code in rates}
    return (
        window if shares == pytest.approx({code: n / sum(requests.values()) for code, n in requests.items()}) else None
    )


async def test_an_expired_limit_is_the_408_that_the_client_got(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Requests that ran into the service's time limit are told as 4xx and as time-outs, not as 5xx."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), model() as port:
        await rig.service()
        seen = await heard(rig)
        async with envoy(rig, short_path, port, keepalive_ms=300) as gateway:
            await eventually(lambda: bool(seen))
            assert set(await call(gateway, "late", 4)) == {408}
            await eventually(lambda: total(seen, "4xx") + total(seen, "5xx") >= 4)

            assert (total(seen, "4xx"), total(seen, "5xx"), total(seen, "2xx")) == (4, 0, 0)
            assert sum(second.timeouts for second in seen) == 4


async def test_requests_turned_away_are_told_but_are_no_load(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Wrong tokens are in no rate (nothing should scale on them); Explain says how many there were."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), model() as port:
        await rig.service()
        seen = await heard(rig)
        async with envoy(rig, short_path, port) as gateway:
            await eventually(lambda: bool(seen))
            assert set(await call(gateway, "", 6, token="wrong")) == {401}
            assert set(await call(gateway, "", 2)) == {200}
            lines = await eventually(lambda: rejections(rig))
            await eventually(lambda: total(seen, "2xx") == 2)

            assert (total(seen, "4xx"), lines) == (0, ["6 requests of ocr"])


async def test_what_limits_refuse_is_told_by_code(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """As ServiceMetrics, in the API and in the explanation; a caller who left is 499. None of it is load."""
    policy = GatewayPolicy(concurrency_limit=1)
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), model() as port:
        await rig.service()
        seen = await heard(rig)
        async with envoy(rig, short_path, port, keepalive_ms=10_000, gateway=policy) as gateway:
            await eventually(lambda: bool(seen))
            leaves = asyncio.create_task(call(gateway, "late", 1))
            await eventually(lambda: any(second.in_flight for second in seen))
            refused = await call(gateway, "", 4)
            leaves.cancel()
            await eventually(lambda: sum(second.refused_by_code.get("499", 0) for second in seen) == 1)
            found = await eventually(lambda: both_refused(rig))
            lines = (await rig.metrics.Explain(ExplainRequest(name="ocr"), metadata=METADATA)).lines

            assert set(refused) == {429}
            assert sum(second.refused_by_code.get("429", 0) for second in seen) == 4
            assert total(seen, "4xx") == 0
            assert found["429"] / found["499"] == pytest.approx(4)
            assert [line.message for line in lines if line.code == "Refused"]


async def both_refused(rig: Rig) -> dict[str, float] | None:
    found = dict((await get(rig)).summary.refused_by_code)
    return found if len(found) == 2 else None


async def rejections(rig: Rig) -> list[str]:
    lines = (await rig.metrics.Explain(ExplainRequest(name="ocr"), metadata=METADATA)).lines
    return [line.message.split(" were")[0] for line in lines if line.code == "Rejected"]


async def test_in_flight_and_silence(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Requests being answered are seen; when Envoy is gone nothing is published, which is not zero."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig) as process, model() as port:
        await rig.service()
        seen = await heard(rig)
        async with envoy(rig, short_path, port, keepalive_ms=10_000) as gateway:
            await eventually(lambda: bool(seen))
            calls = asyncio.create_task(call(gateway, "late", 7))
            await eventually(lambda: seen[-1].in_flight == 7)
            assert set(await calls) == {200}
            await eventually(lambda: seen[-1].in_flight == 0)
        await eventually(lambda: process.health.unready() == {})
        published = len(seen)
        before = (await get(rig)).points[-1].at.seconds
        window = await eventually(lambda: later(rig, before + 3))

        assert len(seen) <= published + 1
        assert not window.points[-1].HasField("qps")
        lines = (await rig.metrics.Explain(ExplainRequest(name="ocr"), metadata=METADATA)).lines
        assert lines[0].code == "NoEnvoy"


async def later(rig: Rig, second: int) -> MetricsWindow | None:
    window = await get(rig)
    return window if window.points[-1].at.seconds >= second else None


async def test_usage_and_replicas_without_any_envoy(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """What agents measure and the scheduler says is served although no Envoy reports."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        await rig.service()
        await rig.replica("ocr-1-aaaaa")
        await rig.replica("ocr-1-bbbbb")
        await rig.replica("ocr-1-ccccc")
        await rig.replica("ocr-1-ccccc", state="stopped")

        async def measured() -> bool:
            for name in ("ocr-1-aaaaa", "ocr-1-bbbbb"):
                await usage(rig, name)
            points = (await get(rig)).points
            return bool(points) and points[-1].cpu_cores == 1.0 and points[-1].replicas_total == 2

        await eventually(measured)
        last = (await get(rig)).points[-1]
        assert last.memory_mib == 200
        assert not last.HasField("qps")


async def usage(rig: Rig, name: str) -> None:
    metrics = ReplicaMetrics(
        workspace="default",
        service="ocr",
        replica=name,
        node="n1",
        at_unix_s=time.time(),
        cpu_cores=0.5,
        memory_mib=100,
    )
    await rig.client.publish(f"easel.metric.default.replica.{name}", msgspec.msgpack.encode(metrics))


async def test_the_hour_outlives_a_restart(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A stopped and started monitor still has what was measured before."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, model() as port:
        async with monitor(rig):
            await rig.service()
            seen = await heard(rig)
            async with envoy(rig, short_path, port) as gateway:
                await eventually(lambda: bool(seen))
                await call(gateway, "", 30)
                await eventually(lambda: total(seen, "2xx") == 30)
        async with monitor(rig):
            window = await get(rig, 3600)

            assert round(sum(point.qps for point in window.points), 3) > 0
            assert window.summary.HasField("latency_p99_ms")


async def test_watch_gives_a_point_a_second(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A watcher gets each second once, in order."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig), model() as port:
        await rig.service()
        async with envoy(rig, short_path, port):
            await eventually(lambda: knows(rig))
            watching = rig.metrics.Watch(WatchMetricsRequest(name="ocr"), metadata=METADATA)
            seconds = []
            async with asyncio.timeout(20):
                async for point in watching:
                    seconds.append(point.at.seconds)
                    if len(seconds) == 4:
                        break
            watching.cancel()

            assert seconds == sorted(seconds)
            assert seconds[-1] - seconds[0] >= 2


async def knows(rig: Rig) -> bool:
    try:
        return bool((await get(rig)).points)
    except grpc.aio.AioRpcError:
        return False


async def test_wrong_requests_are_named(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """An unknown service and an impossible window are refused with what is allowed."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await get(rig)
        await rig.service()
        await eventually(lambda: knows_service(rig))
        with pytest.raises(grpc.aio.AioRpcError) as window:
            await get(rig, 4000)

        assert from_rpc(unknown.value).code == "NO_SUCH_SERVICE"
        assert from_rpc(window.value).fields[0].path == "window_s"  # type: ignore[attr-defined]


async def knows_service(rig: Rig) -> bool:
    try:
        await get(rig)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_the_sink_is_for_easels_own_envoys(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A stream without a known process token is refused."""
    async with surroundings(short_path, nats_url, postgres_dsn) as rig, monitor(rig):
        async with grpc.aio.insecure_channel(rig.environment["EASEL_MONITOR_SINK_ADDR"]) as channel:
            method = channel.stream_unary(
                "/envoy.service.metrics.v3.MetricsService/StreamMetrics", lambda raw: raw, lambda raw: raw
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(iter([b""]), metadata=(("easel-process-token", "wrong"),))

        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert Path(rig.environment["EASEL_MONITOR_SINK_ADDR"].removeprefix("unix:")).stat().st_mode & 0o077 == 0
