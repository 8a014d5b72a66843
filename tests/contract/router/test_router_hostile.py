"""Requests made to harm, on a real Envoy: whatever they look like, they get in nowhere and cost what they weigh."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
import yarl

from easel_contracts.spec import GatewayPolicy, Match, Split
from easel_router.decide.snapshot import ServicePlan, Token
from easel_router.testing import PROBE_SECRET, Envoy, Rig, a_group, a_plan, free_port
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import AUTH_FILTER, ROUTE
from easel_router.xds.refusals import Refused
from easel_router.xds.render import render
from tests.contract.router.test_router_auth import signed
from tests.contract.router.test_router_web import link, proof, session
from tests.flow.router.backends import Backend

LONG = 50_000
MUCH_CPU_S = 1.0
"""What is linear takes a thousandth of it; what was quadratic took 4 s and more."""


def app(*ports: int, more: tuple[Token, ...] = ()) -> ServicePlan:
    return a_plan("ocr_app", *ports, more=more, gateway=GatewayPolicy(web=True))


@pytest.fixture
async def web_port() -> int:
    return free_port()


@pytest.fixture
async def envoy(xds: Rig, web_port: int) -> Envoy:
    return await xds.envoy(web_addr=f"127.0.0.1:{web_port}")


async def get(client: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    where = yarl.URL(url, encoded=True)
    async with client.request(method, where, headers=sent, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("location") or await answer.text()


async def test_an_error_of_the_script_lets_nobody_in(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Envoy by itself would pass on a request whose script broke off."""
    scope = pb.ScopedRouteConfiguration.FromString(render(app(servers[0].port), PROBE_SECRET).by_type[ROUTE]["ocr_app"])
    config = scope.route_configuration.virtual_hosts[0].typed_per_filter_config[AUTH_FILTER]
    told = pb.LuaPerRoute.FromString(config.value)
    told.filter_context.update({"web": True})  # a script takes it for a name
    config.value = told.SerializeToString()
    await xds.acknowledged(xds.put(app(servers[0].port)))
    await xds.acknowledged({ROUTE: {"ocr_app": xds.catalog.put(ROUTE, "ocr_app", scope.SerializeToString())}})
    status, body = await get(client, envoy.url + "/api/predict/ocr_app/", cookie=session())

    assert (status, "could not tell" in body, servers[0].executions) == (503, True, {}), body
    assert "nobody may" in envoy.log()


async def test_a_refusal_tells_no_secret(xds: Rig, envoy: Envoy, servers: list[Backend]) -> None:
    """Envoy writes out what it refuses, and the reason is logged and shown to users."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    await xds.acknowledged(xds.put_group(a_group("group", a_plan("ocr", servers[0].port), token="of-the-group")))
    stream, said = xds.server.streams[envoy.node_id], {}
    for name in ("ocr", "group"):
        packed = xds.catalog.get(ROUTE, name)
        assert packed is not None
        scope = pb.ScopedRouteConfiguration.FromString(packed.body)
        scope.route_configuration.virtual_hosts[0].ClearField("domains")
        version = xds.catalog.put(ROUTE, name, scope.SerializeToString())
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(stream.acknowledged({ROUTE: {name: version}}), 5)
        said[name] = refused.value.reason

    assert not [reason for reason in said.values() for secret in ("tok", "of-the-group", PROBE_SECRET)
                if secret in reason or "string_match" in reason]  # fmt: skip
    assert "Domains: value must contain at least 1 item" in said["group"]  # what is short enough to come whole
    assert said["ocr"]


async def test_long_cookies_cost_what_they_weigh(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Of strangers at a web application; and of callers where a group's canary looks for a cookie."""
    plan, other = app(servers[0].port), a_plan("other", servers[1].port)
    for each in (plan, other):
        await xds.acknowledged(xds.put(each))
    by_cookie = Split(weight_permille=0, match=Match(kind="cookie", name="beta", value="1"))
    await xds.acknowledged(xds.put_group(a_group("group", plan, other, split=by_cookie, candidate="other")))
    before = envoy.cpu_s()
    for cookie in ("a" + " " * LONG + "b", " " * LONG + "a", ";" * LONG, "easel_session=" + "1" * LONG):
        status, _ = await get(client, f"http://127.0.0.1:{web_port}/", host="ocr-app.x", cookie=cookie)
        assert status == 401
    for cookie in ("a" * LONG, " " * LONG + "a", "=" * LONG):
        await get(client, envoy.url + "/api/predict/group/", authorization="group-tok", cookie=cookie)

    assert envoy.cpu_s() - before < MUCH_CPU_S


async def test_long_signatures_are_not_computed(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Hashing what a stranger sends, once for each token, would stop all others."""
    more = tuple(Token(name=f"t{n}", value=f"token-{n}") for n in range(31))
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, more=more)))
    await xds.acknowledged(xds.put(a_plan("one", servers[0].port)))
    for service in ("ocr", "one"):
        for length, expected in ((3000, 200), (5000, 401)):
            path = f"/api/predict/{service}/" + "a" * length
            url = yarl.URL(envoy.url + path, encoded=True)
            async with client.post(url, headers=signed("tok", path), data=b"hello") as answer:
                assert answer.status == expected, (service, length)
    async with client.get(yarl.URL(envoy.url + path, encoded=True), headers={"authorization": "tok"}) as answer:
        assert answer.status == 200  # a path may be as long as ever


async def test_a_link_never_leads_to_another_host(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Browsers take a backslash for a slash."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    for path in ("/\\evil.example/", "/\\/evil.example", "//\\evil.example", "\\\\evil.example", "/\\"):
        url = f"http://127.0.0.1:{web_port}{path if path.startswith('/') else '/' + path}?{link()}"
        status, location = await get(client, url, host="ocr-app.x")
        assert (status, location[:1], location[1:2] in ("/", "\\")) == (303, "/", False), location


async def test_no_model_gets_a_link(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Whoever got it could open the service with it: also not where the request is let in by something else."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    for base, host in ((f"http://127.0.0.1:{web_port}", "ocr-app.x"), (envoy.url + "/api/predict/ocr_app", "x")):
        for method, opened_by in (("POST", {"cookie": session()}), ("GET", {"authorization": "tok"})):
            status, body = await get(client, f"{base}/p?a=1&{link()}&b=2", method, host=host, **opened_by)
            assert (status, '"path": "/p?a=1&b=2"' in body) == (200, True), body
        path = "//p" if host != "x" else "/api/predict/ocr_app//p"
        headers = {name.lower(): value for name, value in signed("tok", path, "GET").items()} | {"host": host}
        async with client.get(yarl.URL(f"{base}//p?{link()}", encoded=True), headers=headers) as answer:
            assert answer.status == 200, await answer.text()  # the signature is over what was sent


async def test_no_header_of_a_caller_is_taken_for_the_gateways_own(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Sides, copies, probes, limits and retries are not for callers to choose."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    await xds.acknowledged(xds.put(a_plan("other", servers[1].port, token="another")))
    spoofed = {
        "x-easel-probe": "guess", "x-easel-arm": "candidate", "x-easel-mirror": "other", "x-easel-host": "/other",
        "x-easel-service": "other", "x-envoy-original-path": "/api/predict/other", "x-envoy-retry-on": "5xx",
        "x-envoy-max-retries": "9", "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-attempt-count": "77",
        "x-envoy-upstream-alt-stat-name": "other",
    }  # fmt: skip
    url = envoy.url + "/api/predict/ocr/status?code=500"
    async with client.post(url, headers=spoofed | {"authorization": "tok", "x-id": "once"}) as answer:
        assert answer.status == 500
    assert (servers[0].executions["once"], sum(servers[1].executions.values())) == (1, 0)
    assert not {name for name in servers[0].headers if name.lower().startswith("x-envoy-")} - {"x-envoy-attempt-count"}
    async with client.post(url, headers=spoofed | {"authorization": "another"}) as answer:
        assert answer.status == 401


async def test_links_of_every_odd_expiry(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Well signed, all of them: what is no whole number of seconds in this era opens nothing."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    soon = str(int(time.time()) + 600)
    odd = ("nan", "inf", "-1", "1e12", "0x7fffffff", "9" * 13, "9" * 400, "", f"%20{soon}", f"{soon}.0", f"+{soon}")
    for expiry in (*odd, soon):
        expected = 303 if expiry == soon else 401
        url = f"http://127.0.0.1:{web_port}/?easel_link={proof('easel-link', expiry)}"
        assert (await get(client, url, host="ocr-app.x"))[0] == expected, expiry
