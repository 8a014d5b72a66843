"""The router on real stores and a real Envoy: facts in, routes live, facts out; faults on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_kit.grpc import channel
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, routes_pb2, routes_pb2_grpc

from .backends import Backend, backends
from .platform import KEY, Platform, platform

AUTH = {"authorization": "tok"}
DISCOVERY = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(3) as made:
        yield made


async def get(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers or AUTH) as answer:
        return answer.status, await answer.text()


async def test_applied_means_that_a_request_succeeds(easel: Platform, servers: list[Backend]) -> None:
    """`route.applied` names the replica only once a request through Envoy reaches it."""
    envoy = easel.envoys[0]
    await easel.service("ocr", wanted="stopped")
    await easel.applied("ocr")
    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 503

    await easel.service("ocr", "started")
    replica = await easel.replica("ocr", servers[0].port)
    state = await easel.applied("ocr", replica)

    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 200
    assert state.envoys == 1
    assert state.token_version == 1


async def test_a_new_token_replaces_the_old_one(easel: Platform, servers: list[Backend]) -> None:
    """After the change the old token opens nothing."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", replica)
    await easel.service("ocr", "updated", token="fresh", version=2)
    await eventually(lambda: easel.routes("ocr")[-1].token_version == 2)

    assert (await get(envoy.url, "/api/predict/ocr", {"authorization": "tok"}))[0] == 401
    assert (await get(envoy.url, "/api/predict/ocr", {"authorization": "fresh"}))[0] == 200


async def test_drained_is_told_only_when_nothing_is_in_flight(easel: Platform, servers: list[Backend]) -> None:
    """A draining replica takes nothing new, finishes what it has, and then `traffic.drained` is told."""
    envoy, (old, new, _) = easel.envoys[0], servers
    await easel.service("ocr")
    first = await easel.replica("ocr", old.port)
    await easel.applied("ocr", first)
    running = asyncio.create_task(get(envoy.url, "/api/predict/ocr/wait"))
    await eventually(lambda: old.active == 1)
    second = await easel.replica("ocr", new.port)
    await easel.applied("ocr", first, second)
    await easel.replica("ocr", old.port, "draining")
    await easel.applied("ocr", second, draining=(first,))
    answers = [await get(envoy.url, "/api/predict/ocr") for _ in range(10)]
    assert all('"b1"' in body for _, body in answers), answers
    assert easel.drained() == []

    old.release()
    await eventually(lambda: easel.drained() == [first])
    assert (await running)[0] == 200


async def test_deleting_lets_requests_finish(easel: Platform, servers: list[Backend]) -> None:
    """A deleted service takes nothing new at once; its last requests finish and are waited for."""
    envoy, server = easel.envoys[0], servers[0]
    await easel.service("ocr")
    replica = await easel.replica("ocr", server.port)
    await easel.applied("ocr", replica)
    running = asyncio.create_task(get(envoy.url, "/api/predict/ocr/wait"))
    await eventually(lambda: server.active == 1)
    await easel.service("ocr", "updated", wanted="deleted")
    await eventually(lambda: easel.routes("ocr", "removed"))
    await easel.replica("ocr", server.port, "draining")
    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 404
    assert easel.drained() == []

    server.release()
    await eventually(lambda: easel.drained() == [replica])
    assert (await running)[0] == 200
    await easel.replica("ocr", server.port, "stopped")
    await easel.service("ocr", "deleted", wanted="deleted")
    await easel.service("ocr", "created", token="again", version=1)
    await eventually(lambda: easel.routes("ocr")[-1].replicas == ())


async def test_deleted_and_made_again_in_a_hurry(easel: Platform, servers: list[Backend]) -> None:
    """Whatever overtakes what, the last one's token opens it, and no earlier one does."""
    envoy = easel.envoys[0]
    for n in range(6):
        await easel.service("ocr", "created", token=f"token{n}")
        await easel.service("ocr", "updated", token=f"token{n}", wanted="deleted")
        await easel.service("ocr", "deleted", token=f"token{n}", wanted="deleted")
    await easel.service("ocr", "created", token="last")
    replica = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", replica)

    async def opens() -> bool:
        return (await get(envoy.url, "/api/predict/ocr", {"authorization": "last"}))[0] == 200

    await eventually(opens)
    for n in range(6):
        assert (await get(envoy.url, "/api/predict/ocr", {"authorization": f"token{n}"}))[0] == 401


async def test_killed_router_loses_nothing(easel: Platform, servers: list[Backend]) -> None:
    """Traffic flows while it is away; control may be away too when it comes back; what changed meanwhile is applied."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    first = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", first)
    await eventually(lambda: (easel.path / "router" / "last-good.jsonl").exists())
    assert (easel.path / "router" / "last-good.jsonl").stat().st_mode & 0o777 == 0o600
    await easel.kill_router()
    await easel.stop_control()
    second = await easel.replica("ocr", servers[1].port)
    assert [(await get(envoy.url, "/api/predict/ocr"))[0] for _ in range(20)] == [200] * 20

    await easel.start_router()
    async with aiohttp.ClientSession() as session:
        statuses = []
        while len(easel.routes("ocr")[-1].replicas) < 2:
            async with session.get(envoy.url + "/api/predict/ocr", headers=AUTH) as answer:
                statuses.append(answer.status)
    await easel.applied("ocr", first, second)

    assert set(statuses) <= {200}


async def test_killed_envoy_comes_back_with_everything(easel: Platform, servers: list[Backend]) -> None:
    """A restarted Envoy gets all routes; meanwhile no route counts as applied without it."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    first = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", first)
    await envoy.stop()
    second = await easel.replica("ocr", servers[1].port)
    await envoy.start(easel.envoy_config(envoy))
    await easel.applied("ocr", first, second)

    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 200


async def test_two_envoys_both_acknowledge(easel: Platform, servers: list[Backend]) -> None:
    """Both serve one port and one world; `envoys` says two."""
    other = await easel.start_envoy("envoy-1", easel.envoys[0].data_port)
    await easel.service("first")
    await eventually(lambda: easel.routes("first"))
    await eventually(lambda: "envoy-1" in easel.router_log() or (easel.path / "envoy-1.probe").exists())
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port)

    async def both() -> bool:
        await easel.service("ocr", "updated")
        return (await easel.applied("ocr", replica)).envoys == 2

    await eventually(both)
    await easel.envoys[0].stop()
    assert (await get(other.url, "/api/predict/ocr"))[0] == 200


async def test_refused_route_keeps_the_last_good_one(easel: Platform, servers: list[Backend]) -> None:
    """A plan that cannot be: told once as refused with the reason; requests go on."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", replica)
    await easel.service("ocr", "updated", keepalive_ms=-1)
    await eventually(lambda: easel.routes("ocr", "refused"))

    assert "keepalive_ms" in easel.routes("ocr", "refused")[0].refused_reason
    assert (await get(envoy.url, "/api/predict/ocr"))[0] == 200
    await easel.service("ocr", "updated", keepalive_ms=5000)
    await eventually(lambda: easel.routes("ocr")[-1].generation == 3)


async def test_routes_api(easel: Platform, servers: list[Backend]) -> None:
    """Get and Explain answer at the control listener, as gRPC and as JSON."""
    envoy = easel.envoys[0]
    await easel.service("ocr")
    replica = await easel.replica("ocr", servers[0].port)
    await easel.applied("ocr", replica)
    metadata = (("authorization", f"Bearer {KEY}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.control_port}") as control:
        stub = routes_pb2_grpc.RoutesStub(control)
        route = await stub.Get(routes_pb2.GetRouteRequest(name="ocr"), metadata=metadata)
        why = await stub.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=metadata)
    status, body = await get(envoy.control_url, "/v1/services/ocr/route", {"authorization": f"Bearer {KEY}"})
    missing, error = await get(envoy.control_url, "/v1/services/nope/route", {"authorization": f"Bearer {KEY}"})
    refused, _ = await get(envoy.control_url, "/v1/services/ocr/route", {"authorization": "Bearer wrong"})

    assert (route.state, list(route.replicas), route.envoys) == ("probed", [replica], 1)
    assert [line.code for line in why.lines] == ["Routed"]
    assert (status, '"refused_reason"' in body) == (200, True)
    assert (missing, "NO_SUCH_SERVICE" in error) == (404, True), error
    assert refused == 401


async def test_nobody_else_may_connect(easel: Platform) -> None:
    """Discovery holds tokens: without the process token of an Envoy there is none."""
    await easel.service("ocr")
    await eventually(lambda: easel.routes("ocr"))
    async with channel(easel.env["EASEL_ROUTER_XDS_ADDR"], "guess") as opened:
        call: Any = opened.stream_stream(DISCOVERY, None, None)(None)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in call:
                pass

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
