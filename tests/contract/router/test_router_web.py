"""Web applications on a real Envoy: by host and by path, opened by links, kept open by cookies, and by nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yarl

from easel_contracts.spec import GatewayPolicy
from easel_proto.v1.services_pb2 import Service
from easel_router.decide.snapshot import Hold, ServicePlan, Token
from easel_router.hold import Asked, Go
from easel_router.testing import Envoy, Rig, a_plan, free_port
from easel_router.xds.messages import ROUTE
from easel_router.xds.web import web_scope
from easel_sdk.web_links import web_link
from tests.contract.router.test_router_auth import signed
from tests.contract.router.test_router_control_listener import a_certificate
from tests.flow.router.backends import Backend

TOKEN = "tok"
BY_PATH = "/api/predict/ocr_app"
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def proof(what: str, expires: int | str, token: str = TOKEN, service: str = "ocr_app") -> str:
    """A link's or a cookie's value, as anybody with the token can make it."""
    digest = hmac.new(token.encode(), f"{what}\n{service}\n{expires}".encode(), hashlib.sha1).digest()
    return f"{expires}." + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def link(in_s: int = 600, **more: str) -> str:
    return "easel_link=" + proof("easel-link", int(time.time()) + in_s, **more)


def session(in_s: int = 600, **more: str) -> str:
    return "easel_session=" + proof("easel-session", int(time.time()) + in_s, **more)


class Site:
    """A web application as a browser sees it, at one of its two places."""

    def __init__(self, client: aiohttp.ClientSession, port: int, host: str, base: str) -> None:
        self._client, self._url, self.host, self.base = client, f"http://127.0.0.1:{port}{base}", host, base

    async def get(self, path: str = "/", cookie: str = "", method: str = "GET", **headers: str) -> tuple[int, str, Any]:
        """Status, body and headers; no redirect is followed."""
        sent = {"host": self.host} | ({"cookie": cookie} if cookie else {})
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = yarl.URL(self._url + path, encoded=True)
        async with self._client.request(method, url, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers


@pytest.fixture
async def web_port() -> int:
    return free_port()


@pytest.fixture
async def envoy(xds: Rig, web_port: int) -> Envoy:
    return await xds.envoy(web_addr=f"127.0.0.1:{web_port}")


@pytest.fixture
async def client() -> Any:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as made:
        yield made


@pytest.fixture(params=["host", "path"])
async def site(request: pytest.FixtureRequest, envoy: Envoy, web_port: int, client: aiohttp.ClientSession) -> Site:
    if request.param == "host":
        return Site(client, web_port, f"ocr-app.localhost:{web_port}", "")
    return Site(client, envoy.data_port, f"127.0.0.1:{envoy.data_port}", BY_PATH)


def app(*ports: int, more: tuple[Token, ...] = (), **rest: Any) -> ServicePlan:
    return a_plan("ocr_app", *ports, token=TOKEN, more=more, gateway=GatewayPolicy(web=True), **rest)


async def test_a_link_opens_and_a_cookie_keeps_open(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """303 to the same page without the link; the model sees neither link nor cookie, but its own cookies."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    status, _, headers = await site.get(f"/page?a=b&{link()}&c=%20d")
    assert (status, headers["location"]) == (303, f"{site.base}/page?a=b&c=%20d")
    assert headers["cache-control"] == "no-store"
    made = SimpleCookie(headers["set-cookie"])["easel_session"]
    assert (made["path"], made["httponly"], made["samesite"]) == (site.base or "/", True, "Lax")
    assert (made["max-age"], made["secure"]) == ("43200", "")
    assert sum(servers[0].executions.values()) == 0
    status, body, _ = await site.get("/page?a=b", cookie=f"theirs=1; easel_session={made.value}; more=2")
    assert (status, '"path": "/page?a=b"' in body) == (200, True)

    assert servers[0].headers["Cookie"] == "theirs=1; more=2"
    assert servers[0].headers["Host"] == site.host
    assert (await site.get("/", cookie=f"easel_session={made.value}"))[0] == 200
    assert "Cookie" not in servers[0].headers
    assert {n.lower() for n in servers[0].headers if n.lower().startswith("x-easel")} == set()


async def test_the_clients_link_is_one(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """What `easel open` makes."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    at_host = "http://ocr-app.localhost:1/" if not site.base else ""
    config = json.dumps({"metadata": {"enable_webservice": True}})
    shown = Service(service_name="ocr_app", token=TOKEN, endpoint="http://x" + BY_PATH, web_endpoint=at_host,
                    service_config=config)  # fmt: skip
    made = yarl.URL(web_link(shown, now_unix_s=time.time(), ttl_s=60, path="/page?a=b"), encoded=True)
    assert made.path == f"{site.base}/page"
    status, _, headers = await site.get(made.raw_path_qs.removeprefix(site.base))

    assert (status, headers["location"]) == (303, f"{site.base}/page?a=b")


async def test_tokens_open_it_as_ever(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """In all forms; whoever sends one is judged by it alone."""
    await xds.acknowledged(xds.put(app(servers[0].port, more=(Token(name="b", value="two"),))))
    for token in (TOKEN, "two"):
        eas = signed(token, site.base + "/x", method="GET")["Authorization"]
        mark = {"Content-MD5": hashlib.md5(b"hello").hexdigest(), "Content-Type": "application/octet-stream"}
        mark["Date"] = "Mon, 02 Jan 2026 15:04:05 GMT"
        assert (await site.get("/x", authorization=token))[0] == 200
        assert (await site.get("/x", authorization=f"Bearer {token}"))[0] == 200
        assert (await site.get("/x", authorization=eas, **mark))[0] == 200
    assert (await site.get("/x", authorization="wrong"))[0] == 401
    assert (await site.get("/x", authorization="wrong", cookie=session()))[0] == 401
    await site.get("/x", authorization=TOKEN, cookie=session())

    assert "Cookie" not in servers[0].headers


async def test_whatever_is_not_proven_is_refused(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """Nothing, an expired or a wrong link or session, another service's, one under another or an expired token, one of
    the other kind: 401 says what to do, as a page where a browser asks."""
    past = (Token(name="old", value="old", expires_unix_s=int(time.time()) - 1),)
    await xds.acknowledged(xds.put(app(servers[0].port, more=past)))
    soon = int(time.time()) + 600
    wrong = {
        "": "a link or a token opens",
        link(-1): "this link has expired",
        link(token="other"): "this link is not valid",
        link(token="old"): "this link is not valid",
        link(token=""): "this link is not valid",
        link(service="ocr"): "this link is not valid",
        "easel_link=" + proof("easel-session", soon): "this link is not valid",
        "easel_link=" + proof("easel-link", soon).replace(str(soon), str(soon + 1)): "this link is not valid",
        "easel_link=" + proof("easel-link", soon)[:-1]: "this link is not valid",
        "easel_link=" + proof("easel-link", soon) + "A": "this link is not valid",
        "easel_link=": "this link is not valid",
        "easel_link=" + TOKEN: "this link is not valid",
        f"easel_link={soon}.": "this link is not valid",
        f"easel_link={'9' * 400}.{'A' * 27}": "this link is not valid",
    }
    for query, why in wrong.items():
        status, body, _ = await site.get("/?" + query)
        assert (status, why in body, "`easel open ocr_app`" in body) == (401, True, True), (query, body)
    cookies = {
        session(-1): "this session has expired",
        session(token="other"): "this session is not valid",
        session(token="old"): "this session is not valid",
        session(service="ocr"): "this session is not valid",
        "easel_session=" + proof("easel-link", soon): "this session is not valid",
        "easel_session=" + TOKEN: "this session is not valid",
        "easel_session=": "this session is not valid",
        "other=" + session().partition("=")[2]: "a link or a token opens",
    }
    for cookie, why in cookies.items():
        status, body, _ = await site.get("/", cookie=cookie)
        assert (status, why in body) == (401, True), (cookie, body)
    status, body, headers = await site.get("/?" + link(-1), **HTML)
    assert (status, headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert ("this link has expired" in body, "`easel open ocr_app`" in body) == (True, True)
    assert (await site.get("/?" + link(), method="POST"))[0] == 401

    assert sum(servers[0].executions.values()) == 0


async def test_an_old_link_does_not_shut_out_who_is_in(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """A bookmark of it leads to the clean page. One that is good begins a new session."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    status, _, headers = await site.get("/x?" + link(-1), cookie=session())
    assert (status, headers["location"], "set-cookie" in headers) == (303, f"{site.base}/x", False)
    status, _, headers = await site.get("/x?" + link(), cookie=session(-1))

    assert (status, headers["location"], "set-cookie" in headers) == (303, f"{site.base}/x", True)


async def test_rotating_the_token_ends_both(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """At once; a token that is about to expire makes no longer session."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    old_link, old_session = link(), session()
    assert (await site.get("/", cookie=old_session))[0] == 200
    soon = int(time.time()) + 300
    rotated = (Token(value="fresh"), Token(value=TOKEN, expires_unix_s=soon))
    await xds.acknowledged(xds.put(msgspec.structs.replace(app(servers[0].port), tokens=rotated)))
    assert (await site.get("/", cookie=old_session))[0] == 200
    _, _, headers = await site.get("/?" + old_link)
    made = SimpleCookie(headers["set-cookie"])["easel_session"]
    assert made.value.startswith(f"{soon}.")
    assert 290 <= int(made["max-age"]) <= 300
    await xds.acknowledged(xds.put(msgspec.structs.replace(app(servers[0].port), tokens=rotated[:1])))

    assert (await site.get("/", cookie=old_session))[0] == 401
    assert (await site.get("/?" + old_link))[0] == 401
    assert (await site.get("/", cookie=session(token="fresh")))[0] == 200


async def test_pages_of_another_origin_get_nothing(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """A browser may send the cookie along; its own page may ask, and so may a token."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    for origin in ("http://evil.example", "null", f"http://{site.host}.evil.example", "http://"):
        status, body, _ = await site.get("/x", cookie=session(), method="POST", origin=origin)
        assert (status, "another origin" in body) == (403, True)
    assert (await site.get("/x", cookie=session(), method="POST", origin=f"http://{site.host}"))[0] == 200

    assert (await site.get("/x", method="POST", origin="http://evil.example", authorization=TOKEN))[0] == 200


async def test_a_websocket_of_an_open_page(
    xds: Rig, site: Site, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """With the cookie; not without, nor from another origin."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    headers = {"host": site.host, "cookie": session(), "origin": f"http://{site.host}"}
    async with client.ws_connect(site._url + "/ws", headers=headers) as socket:
        await socket.send_str("hello")
        assert (await socket.receive_str()).endswith("hello")
    for change in ({"cookie": ""}, {"origin": "http://evil.example"}):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect(site._url + "/ws", headers=headers | change)


async def test_a_link_never_leads_elsewhere(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """Two slashes at the beginning would be another host."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    for path in ("//evil.example/", "///evil.example/x"):
        status, _, headers = await site.get(f"{path}?{link()}")
        assert (status, headers["location"].startswith("//")) in {(303, False), (404, False)}


async def test_the_host_names_the_service(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Its first label, whatever the rest; only web applications have one, and no header of the request's changes it."""
    await xds.acknowledged(xds.put(app(servers[0].port)))
    plain = a_plan("plain", servers[1].port)
    await xds.acknowledged(xds.put(plain))
    found = {}
    hosts = ("ocr-app.localhost", "ocr-app.apps.example.com:8082", "ocr_app.localhost", "ocr-app2.localhost")
    for host in (*hosts, "plain.localhost", "localhost", "/plain.x", "127.0.0.1"):
        status, body, _ = await Site(client, web_port, host, "").get(
            "/", authorization=TOKEN, x_easel_host="ocr_app", x_easel_service="plain"
        )
        found[host] = status
        assert status == 200 or "no web application has the host name" in body or status == 400
    assert found == {
        "ocr-app.localhost": 200, "ocr-app.apps.example.com:8082": 200, "ocr_app.localhost": 404,
        "ocr-app2.localhost": 404, "plain.localhost": 404, "localhost": 404, "/plain.x": found["/plain.x"],
        "127.0.0.1": 404,
    }  # fmt: skip
    assert found["/plain.x"] in (400, 404)
    assert set(servers[1].executions) == set()
    by_path = Site(client, web_port, f"ocr-app.localhost:{web_port}", "")
    _, body, _ = await by_path.get("/api/predict/plain/x", authorization=TOKEN)
    assert '"path": "/api/predict/plain/x"' in body  # the application's own path, whatever it looks like
    await xds.acknowledged(xds.put(msgspec.structs.replace(app(servers[0].port), web=False)))

    assert xds.catalog.get(ROUTE, web_scope("ocr_app")) is None
    assert (await by_path.get("/", authorization=TOKEN))[0] == 404


async def test_no_browser_opens_what_is_no_web_application(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Links and sessions of a service without it are worth nothing, at its path either."""
    await xds.acknowledged(xds.put(msgspec.structs.replace(app(servers[0].port), web=False)))
    site = Site(client, envoy.data_port, f"127.0.0.1:{envoy.data_port}", BY_PATH)

    assert (await site.get("/?" + link()))[0] == 401
    assert (await site.get("/", cookie=session()))[0] == 401


async def test_a_page_waits_for_a_replica(xds: Rig, site: Site, servers: list[Backend]) -> None:
    """Held as any request of the service; and limited with all others together."""
    await xds.acknowledged(xds.put(app(hold=Hold(max_requests=9))))

    async def answer(asked: Asked) -> Go:
        await xds.acknowledged(xds.put(app(servers[0].port)))
        return Go(left_s=60.0)

    xds.answer = answer
    status, body, _ = await site.get("/x", cookie=session())
    assert (status, '"path": "/x"' in body) == (200, True)
    assert [asked.service for asked in xds.asked] == ["ocr_app"]


async def test_both_places_share_one_limit(
    xds: Rig, envoy: Envoy, web_port: int, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """A request at one place leaves less for the other."""
    plan = a_plan("ocr_app", servers[0].port, gateway=GatewayPolicy(web=True, rate_limit_qps=4))
    await xds.acknowledged(xds.put(plan))
    by_host = Site(client, web_port, f"ocr-app.localhost:{web_port}", "")
    by_path = Site(client, envoy.data_port, f"127.0.0.1:{envoy.data_port}", BY_PATH)
    statuses = [(await site.get("/", authorization=TOKEN))[0] for _ in range(6) for site in (by_host, by_path)]

    assert 4 <= statuses.count(200) <= 6, statuses
    assert set(statuses) == {200, 429}


async def test_over_tls_the_cookie_is_secure(
    xds: Rig, servers: list[Backend], short_path: Path, client: aiohttp.ClientSession
) -> None:
    """A browser then sends it by TLS alone."""
    cert, key = await a_certificate(short_path)
    port = free_port()
    await xds.envoy(web_addr=f"127.0.0.1:{port}", tls_cert=str(cert), tls_key=str(key))
    await xds.acknowledged(xds.put(app(servers[0].port)))
    url = f"https://127.0.0.1:{port}/?{link()}"
    async with client.get(url, headers={"host": "ocr-app.x"}, ssl=False, allow_redirects=False) as answer:
        assert (answer.status, "; Secure" in answer.headers["set-cookie"]) == (303, True)


async def test_an_envoy_without_the_listener(xds: Rig, servers: list[Backend], client: aiohttp.ClientSession) -> None:
    """Web applications are reached by their paths then."""
    made = await xds.envoy()
    await xds.acknowledged(xds.put(app(servers[0].port)))
    listening = await made.admin("/listeners")
    assert "web::" not in listening
    by_path = Site(client, made.data_port, "ocr-app.localhost", BY_PATH)

    assert (await by_path.get("/", cookie=session()))[0] == 200
