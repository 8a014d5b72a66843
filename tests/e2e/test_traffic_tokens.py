"""Tokens and web applications as callers and browsers meet them, on a platform with a listener for host names."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from easel_kit.testing import eventually, free_port, short_directory
from easel_sdk import Client
from easel_sdk.web_links import web_link
from tests.e2e.load import steady_load
from tests.e2e.platform import Platform, deploy, remove, running_platform, spec
from tests.e2e.traffic import WAIT_S, ask

NAME = "opened_by"
HOST = "opened-by.localhost"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """With the listener for host names."""
    options = ("--web-port", str(free_port()))
    with short_directory() as path, running_platform(path / "home", options=options) as made:
        yield made


@pytest.fixture
async def service(easel: Client) -> AsyncIterator[Any]:
    """One replica; a web application."""
    document = spec(NAME, env={"VALUE": "page"})
    document["metadata"]["enable_webservice"] = True
    yield await deploy(easel, document)
    await remove(easel, NAME)


async def refused_in_the_end(service: Any, token: str) -> None:
    """Returns when the token opens nothing any more; from then on it never does."""

    async def is_refused() -> bool:
        return (await ask(service.endpoint, token)).status == 401

    await eventually(is_refused, WAIT_S)
    for _ in range(5):
        assert (await ask(service.endpoint, token)).who == "Unauthorized"


async def test_rotation_refuses_nobody(easel: Client, service: Any) -> None:
    """Callers with the old value and with the new one are answered all along; then the old one is over."""
    old = service.token
    async with steady_load(service.endpoint, old, clients=2) as load:
        await load.answered_more(20)
        new = (await easel.tokens.rotate(NAME, overlap_s=600)).value
        assert (await easel.services.get(NAME)).token == new

        async def known() -> bool:
            return (await ask(service.endpoint, new)).status == 200

        await eventually(known, WAIT_S)
        async with steady_load(service.endpoint, new, clients=2) as changed:
            await changed.answered_more(100)
            await load.answered_more(100)
    async with steady_load(service.endpoint, new, clients=2) as after:
        await easel.tokens.delete(NAME, "default.1")
        await refused_in_the_end(service, old)
        await after.answered_more(50)

    assert (load.failed(), changed.failed(), after.failed()) == ([], [], [])


async def test_a_token_expires_while_control_is_dead(platform: Platform, easel: Client, service: Any) -> None:
    """Envoy refuses it at its second by itself, and goes on to once control is back; others are not touched."""
    made = await easel.tokens.create(NAME, "brief", expires_in_s=4)

    async def known() -> bool:
        return (await ask(service.endpoint, made.value)).status == 200

    await eventually(known, WAIT_S)
    control = await asyncio.to_thread(platform.pid, "control")
    async with steady_load(service.endpoint, service.token, clients=1) as load:
        await asyncio.sleep(max(made.expire_time.ToMilliseconds() / 1000 - time.time() - 0.3, 0))
        os.kill(control, signal.SIGKILL)
        await refused_in_the_end(service, made.value)
        await load.answered_more(20)

        async def forgotten() -> bool:
            return "brief" not in [token.name for token in await easel.tokens.list(NAME)]

        await eventually(forgotten, WAIT_S)
        await refused_in_the_end(service, made.value)

    assert load.failed() == []


@pytest.mark.parametrize(
    "token",
    ["", "wrong", "Bearer wrong", "Bearer ", "EAS wrong:signature", "Basic {token}", "{token}x", " {token}, {token}"],
)
async def test_what_opens_nothing(service: Any, token: str) -> None:
    """401 with a body that says so, by every form of a wrong token."""
    answer = await ask(service.endpoint, token.format(token=service.token))
    assert (answer.status, answer.who) == (401, "Unauthorized")
    assert answer.body["hint"]


class Browser:
    """One that keeps cookies and follows redirects, and takes every name below localhost for this machine."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session, self._at = session, f"http://127.0.0.1:{port}"
        self.headers = {"Host": f"{HOST}:{port}", "Accept": "text/html"}

    async def get(self, target: str, **headers: str) -> aiohttp.ClientResponse:
        """The answer, read."""
        async with self._session.get(self._at + target, headers=self.headers | headers) as answer:
            await answer.read()
            return answer

    async def echo(self, text: str) -> str:
        """What a WebSocket sends back for it."""
        async with self._session.ws_connect(self._at + "/ws", headers={"Host": self.headers["Host"]}) as socket:
            await socket.send_str(text)
            return await socket.receive_str(timeout=30)


@pytest.fixture
async def browser(platform: Platform) -> AsyncIterator[Browser]:
    """A new one, without cookies."""
    port = urlsplit(platform.config()["web_url"]).port
    assert port
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(session, port)


async def test_a_browser_gets_in_by_a_link(platform: Platform, easel: Client, service: Any, browser: Browser) -> None:
    """Shut out without it; with it in by the cookie, WebSocket included; out when the token is rotated."""
    shut = await browser.get("/page")
    assert shut.status == 401
    assert "easel open" in await shut.text()
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await browser.echo("hello")

    link = (await asyncio.to_thread(platform.easel, "open", NAME, "--print")).strip()
    assert link.startswith(f"http://{browser.headers['Host']}/?easel_link=")
    opened = await browser.get("/page?" + urlsplit(link).query)
    assert (opened.status, [step.status for step in opened.history]) == (200, [303])
    found = await opened.json()
    assert (found["value"], found["path"]) == ("page", "/page")
    assert "easel_link" not in str(opened.url)
    assert (await browser.get("/other")).status == 200
    assert await browser.echo("hello") == "page hello"
    strange = await browser.get("/other", Origin="http://evil.example")
    assert strange.status == 403

    await easel.tokens.rotate(NAME, overlap_s=0)

    async def out() -> bool:
        return (await browser.get("/other")).status == 401

    await eventually(out, WAIT_S)


async def test_links_that_open_nothing(easel: Client, service: Any, browser: Browser) -> None:
    """Expired, forged, or of another service."""
    service = await easel.services.get(NAME)
    expired = web_link(service, now_unix_s=time.time() - 100, ttl_s=50)
    good = urlsplit(web_link(service, now_unix_s=time.time(), ttl_s=50)).query
    name, _, value = good.partition("=")
    expires, _, signature = value.partition(".")
    later = f"{name}={int(expires) + 1000}.{signature}"
    for query in (urlsplit(expired).query, later, f"{name}={expires}.", f"{name}=", f"{name}=x.{signature}"):
        assert (await browser.get("/?" + query)).status == 401, query
    assert (await browser.get("/")).status == 401, "a refused link left a cookie"
    assert (await browser.get("/?" + good)).status == 200
    unknown = await browser.get("/", Host="nobody.localhost", Accept="application/json")
    assert (unknown.status, (await unknown.json())["code"]) == (404, "NotFound")


async def test_a_token_opens_the_host_name_too(platform: Platform, service: Any, browser: Browser) -> None:
    """Programs use it there as everywhere; the page's path is the root."""
    answer = await browser.get("/a/b?x=1", Authorization=service.token)
    assert (answer.status, (await answer.json())["path"]) == (200, "/a/b?x=1")
    wrong = await browser.get("/a", Authorization="wrong", Accept="application/json")
    assert (wrong.status, (await wrong.json())["code"]) == (401, "Unauthorized")
