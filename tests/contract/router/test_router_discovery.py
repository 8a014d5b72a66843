"""EAS's direct mode on real Envoys: callers without a token learn where the Envoys are, and nothing else."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import aiohttp
import pytest
import yarl

from easel_kit.testing import eventually
from easel_router.decide.snapshot import Token
from easel_router.testing import Envoy, Rig, a_group, a_plan
from easel_router.xds.messages import ROUTE
from tests.flow.router.backends import Backend

PYTHON = "/api/v1/servicediscovery/upstreams/"
GO = "/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/"


async def ask(client: aiohttp.ClientSession, envoy: Envoy, path: str, method: str = "GET") -> tuple[int, Any]:
    async with client.request(method, yarl.URL(envoy.url + path, encoded=True)) as answer:
        assert answer.content_type == "application/json"
        return answer.status, await answer.json()


def items(*ports: int) -> dict[str, Any]:
    return {"endpoints": {"items": [{"ip": "127.0.0.1", "port": port, "weight": 100} for port in ports]}}


@pytest.mark.parametrize("base", [PYTHON, GO])
async def test_who_exists_is_found(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession, base: str
) -> None:
    """Services with one token or several, with replicas or none, groups and members in them; the rest is 404."""
    plan = a_plan("ocr", servers[0].port)
    more = a_plan("more", more=(Token(name="b", value="two"),))
    for made in (plan, more):
        await xds.acknowledged(xds.put(made))
    await xds.acknowledged(xds.put_group(a_group("vision", plan)))
    for path in ("ocr", "ocr?internal=true", "ocr/sub/path?internal=false", "more", "vision", "vision.ocr"):
        assert await ask(client, envoy, base + path) == (200, items(envoy.data_port)), path
    for path in ("nope", "nope/ocr", "", "/ocr", "ocr2", "servicediscovery", "..", "%6fcr"):
        status, body = await ask(client, envoy, base + path)
        assert (status, body["code"]) == (404, "NotFound"), path
    assert (await ask(client, envoy, base + "ocr", "POST"))[0] == 404
    async with client.get(envoy.url + base + "ocr") as answer:
        assert "tok" not in json.dumps(dict(answer.headers)) + await answer.text()

    assert sum(servers[0].executions.values()) == 0


async def test_the_way_that_is_told_works(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """As EAS's client goes it: discovery without a token, then the call itself with one."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    _, found = await ask(client, envoy, PYTHON + "ocr")
    where = found["endpoints"]["items"][0]
    url = f"http://{where['ip']}:{where['port']}/api/predict/ocr"
    async with client.post(url, headers={"Authorization": "tok"}) as answer:
        assert answer.status == 200
    async with client.post(url) as answer:
        assert answer.status == 401


async def test_envoys_come_and_go(xds: Rig, client: aiohttp.ClientSession) -> None:
    """All are named by all, by the address that others reach; no service's scope changes for that."""
    first = await xds.envoy("envoy-0")
    await xds.acknowledged(xds.put(a_plan("ocr")))
    before = xds.catalog.get(ROUTE, "ocr")
    second = await xds.envoy("envoy-1", advertised_addr="gateway.example:80")
    both = items(first.data_port)
    both["endpoints"]["items"].append({"ip": "gateway.example", "port": 80, "weight": 100})

    async def named(envoy: Envoy, expected: dict[str, Any]) -> bool:
        return await ask(client, envoy, PYTHON + "ocr") == (200, expected)

    for envoy in (first, second):
        await eventually(partial(named, envoy, both))
    await second.stop()
    await eventually(lambda: named(first, items(first.data_port)))

    assert xds.catalog.get(ROUTE, "ocr") is before
