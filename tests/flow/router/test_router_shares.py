"""Limits on a real router with real Envoys: each gets its share, and it is dealt again when their number changes."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from easel_contracts.spec import GatewayPolicy
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, routes_pb2_grpc
from easel_router.testing import Envoy

from .backends import Backend, backends
from .platform import KEY, Platform, platform


@pytest.fixture
async def easel(short_path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    async with platform(short_path, nats_url, postgres_dsn) as made:
        yield made


@pytest.fixture
async def servers() -> AsyncIterator[list[Backend]]:
    async with backends(1) as made:
        yield made


async def in_flight_limits(envoy: Envoy) -> dict[str, int]:
    """Scope → limit of requests in flight there."""
    dump = json.loads(await envoy.admin("/config_dump?resource=dynamic_scoped_route_configs"))
    found = {}
    for config in dump["configs"]:
        for scope in config.get("scoped_route_configs", []):
            text = json.dumps(scope)
            if '"max_concurrency_limit": ' in text:
                name = scope["route_configuration"]["name"]
                found[name] = int(text.partition('"max_concurrency_limit": ')[2].partition("}")[0].partition(",")[0])
    return found


async def test_shares_follow_the_envoys(easel: Platform, servers: list[Backend]) -> None:
    """With a second one each has half; once that is given up, the first has all. Only what is limited is planned again,
    groups too."""
    first = easel.envoys[0]
    for name, policy in (("free", GatewayPolicy()), ("ocr", GatewayPolicy(concurrency_limit=6))):
        await easel.service(name, gateway=policy)
        await easel.applied(name, await easel.replica(name, servers[0].port))
    await easel.group("both", "ocr", gateway=GatewayPolicy(concurrency_limit=8))

    async def are(envoy: Envoy, ocr: int, both: int) -> bool:
        return await in_flight_limits(envoy) == {"ocr": ocr, "both": both}

    async def alone() -> bool:
        return await are(first, 6, 8)

    async def shared() -> bool:
        return await are(first, 3, 4) and await are(second, 3, 4)

    await eventually(alone)
    told = len(easel.routes("free"))
    second = await easel.start_envoy("envoy-1", first.data_port)
    await eventually(shared)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{first.control_port}") as control:
        explained = await routes_pb2_grpc.RoutesStub(control).Explain(
            common_pb2.ExplainRequest(name="ocr"), metadata=(("authorization", f"Bearer {KEY}"),)
        )
    await second.stop(signal.SIGKILL)
    await eventually(alone, 60.0)

    assert "6 requests at a time (approximate: shared by 2 gateways)" in str(explained)
    assert len(easel.routes("free")) == told
