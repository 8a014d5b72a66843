"""Who may call: every form of the token, right and wrong, on a real Envoy. Whatever is not proven is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time

import aiohttp
import msgspec
import pytest
import yarl

from easel_router.decide.snapshot import ServicePlan, Token
from easel_router.testing import PROBE_SECRET, Envoy, Rig, a_plan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import HASH_HEADER, ROUTE
from easel_router.xds.render import render
from tests.flow.router.backends import Backend

TOKEN = "YzA5ZjhkN2U2YjVhNDkzODI3MTYwNWY0ZTNkMmMxYjBhOTg3NjU0Mw=="
LONG = "k" * 100
"""Longer than SHA-1's block: HMAC hashes such keys first."""


def signed(token: str, path: str, method: str = "POST", body: bytes = b"hello", **change: str) -> dict[str, str]:
    """Headers as EAS's clients make them; `change` spoils one after signing."""
    headers = {
        "Content-MD5": hashlib.md5(body).hexdigest(),
        "Content-Type": "application/octet-stream",
        "Date": "Mon, 02 Jan 2026 15:04:05 GMT",
    }
    text = "\n".join([method, headers["Content-MD5"], headers["Content-Type"], headers["Date"], path])
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    headers["Authorization"] = "EAS " + base64.b64encode(digest).decode()
    return headers | {k.replace("_", "-"): v for k, v in change.items()}


async def ask(
    client: aiohttp.ClientSession, envoy: Envoy, path: str, headers: dict[str, str], method: str = "POST"
) -> tuple[int, str]:
    async with client.request(method, envoy.url + path, headers=headers, data=b"hello") as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("token", [TOKEN, LONG])
async def test_every_right_form(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession, token: str
) -> None:
    """As it is, Bearer in both spellings, and signed (with and without a query, a rest of the path)."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token=token)))
    path = "/api/predict/ocr"
    forms = [
        (path, {"Authorization": token}),
        (path, {"Authorization": f"Bearer {token}"}),
        (path, {"Authorization": f"bearer {token}"}),
        (path, signed(token, path)),
        (path + "/v1/x", signed(token, path + "/v1/x")),
        (path + "/v1/x?a=b&c=%20", signed(token, path + "/v1/x")),
        (path + "?a=b", signed(token, path)),
        (path + "?a=b", {"Authorization": token}),
    ]
    answers = [(await ask(client, envoy, where, headers))[0] for where, headers in forms]

    assert answers == [200] * len(forms)


SENT_AND_SIGNED = [
    ("/api/predict/ocr?id=a%20b", "/api/predict/ocr?id=a%20b"),
    ("/api/predict/ocr?id=a%20b", "/api/predict/ocr?id=a b"),
    ("/api/predict/ocr?id=1", "/api/predict/ocr?id=1"),
    ("/api/predict/ocr/a%20b", "/api/predict/ocr/a b"),
    ("/api/predict/ocr/a%20b/%e8%af%86?x=%22%E8%AF%86%22", '/api/predict/ocr/a b/识?x="识"'),
    ("/api/predict/ocr/a%2Fb%20c", "/api/predict/ocr/a%2Fb c"),
    ("/api/predict/ocr/a%2Fb", "/api/predict/ocr/a%2Fb"),
    ("/api/predict/ocr/100%25?x=100%25", "/api/predict/ocr/100%?x=100%"),
    ("/api/predict/ocr/a%zz%2", "/api/predict/ocr/a%zz%2"),
]
"""Targets, and over what the client signed them: a service's name with more behind it, as somebody typed it."""

SENT_AND_SIGNED_OTHERWISE = [
    ("/api/predict/ocr?id=2", "/api/predict/ocr?id=1"),
    ("/api/predict/ocr/x?id=1", "/api/predict/ocr?id=1"),
    ("/api/predict/ocr/x", "/api/predict/ocr/x?id=1"),
    ("/api/predict/ocr?id=1&more=2", "/api/predict/ocr?id=1"),
    ("/api/predict/ocr?id=1", "?id=1"),
    ("/api/predict/ocr/a%20b", "/api/predict/ocr/a+b"),
    ("/api/predict/ocr/a%20b", "/api/predict/ocr/"),
    ("/api/predict/ocr/a%2Fb", "/api/predict/ocr/a/b"),
    ("/api/predict/ocr/a%3Fid=1", "/api/predict/ocr/a?id=1"),
    ("/api/predict/ocr/a?x=1%26y=2", "/api/predict/ocr/a?x=1&y=2"),
    ("/api/predict/ocr/a%23b", "/api/predict/ocr/a#b"),
    ("/api/predict/ocr/a%0Ab", "/api/predict/ocr/a\nb"),
    ("/api/predict/ocr/a%252Fb", "/api/predict/ocr/a%2Fb"),
    ("/api/predict/ocr/a%2520b", "/api/predict/ocr/a b"),
    ("/api/predict/ocr/..%2Fother", "/api/predict/other"),
    ("/api/predict/%6Fcr/x", "/api/predict/ocr/x"),
]
"""A signature of another target, also where the two would be one once all escapes were undone."""


async def send(client: aiohttp.ClientSession, envoy: Envoy, target: str, headers: dict[str, str]) -> int:
    """The target goes as it is."""
    url = yarl.URL(envoy.url + target, encoded=True)
    async with client.post(url, headers=headers, data=b"hello") as answer:
        return answer.status


@pytest.mark.parametrize("more", [(), (Token(name="partner", value="partner-token"),)], ids=["one", "several"])
async def test_signatures_of_what_was_typed(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession, more: tuple[Token, ...]
) -> None:
    """Names with a query or with escapes are signed as they were given, and sent as HTTP has them; each signature is
    good for its target alone, and its token."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token=TOKEN, more=more)))
    tokens = [TOKEN, *(token.value for token in more)]
    good = [
        (await send(client, envoy, sent, signed(token, typed)), sent)
        for sent, typed in SENT_AND_SIGNED for token in tokens
    ]  # fmt: skip
    answered = servers[0].executions.total()
    bad = [(await send(client, envoy, sent, signed(TOKEN, typed)), sent) for sent, typed in SENT_AND_SIGNED_OTHERWISE]
    bad += [(await send(client, envoy, sent, signed("other", typed)), sent) for sent, typed in SENT_AND_SIGNED]

    assert [found for found in good if found[0] != 200] == []
    assert [found for found in bad if found[0] not in (401, 404)] == []
    assert servers[0].executions.total() == answered == len(good)


async def test_every_wrong_form(xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession) -> None:
    """Each is 401, says which form failed, and reaches no replica."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token=TOKEN)))
    await xds.acknowledged(xds.put(a_plan("other", servers[0].port, token="another-token")))
    path = "/api/predict/ocr"
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, "no Authorization"),
        ({"Authorization": ""}, "token"),
        ({"Authorization": TOKEN[:-1]}, "the token is not"),
        ({"Authorization": TOKEN + "x"}, "the token is not"),
        ({"Authorization": "x" + TOKEN[1:]}, "the token is not"),
        ({"Authorization": "another-token"}, "the token is not"),
        ({"Authorization": f"Bearer {TOKEN[:-1]}x"}, "Bearer token"),
        ({"Authorization": "Bearer "}, "token"),
        ({"Authorization": "Bearer"}, "the token is not"),
        ({"Authorization": f"Basic {TOKEN}"}, "the token is not"),
        ({"Authorization": "EAS "}, "token"),
        ({"Authorization": "EAS " + base64.b64encode(b"0" * 20).decode()}, "EAS signature"),
        ({"Authorization": f"EAS {TOKEN}"}, "EAS signature"),
        (signed("another-token", path), "EAS signature"),
        (signed(TOKEN, "/api/predict/other"), "EAS signature"),
        (signed(TOKEN, path, method="GET"), "EAS signature"),
        (signed(TOKEN, path, Date="Tue, 03 Jan 2026 15:04:05 GMT"), "EAS signature"),
        (signed(TOKEN, path, Content_MD5="0" * 32), "EAS signature"),
        (signed(TOKEN, path, Content_Type="text/plain"), "EAS signature"),
    ]
    for headers, why in wrong:
        status, body = await ask(client, envoy, path, headers)
        assert (status, why in body, '"code":"Unauthorized"' in body) == (401, True, True), (headers, status, body)

    assert sum(servers[0].executions.values()) == 0


async def test_one_services_token_opens_no_other(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Also not by names that begin alike, odd paths, or the header that names a service."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token="one")))
    await xds.acknowledged(xds.put(a_plan("ocr2", servers[0].port, token="two")))
    odd = [
        ("/api/predict/ocr2", {}, 401),
        ("/api/predict/ocr2/x", {}, 401),
        ("/api/predict/ocr2?x=/api/predict/ocr", {}, 401),
        ("/x/y", {"x-easel-service": "ocr2"}, 401),
        ("/api/predict/ocr/../ocr2", {}, 200),  # stays with ocr: the path is not rewritten for the model
        ("/x/y/ocr", {}, 404),
        ("//api/predict/ocr2", {}, 404),
        ("/api/predict", {}, 404),
        ("/api/predict/", {}, 404),
        ("/.easel/probe/ocr", {}, 404),
        ("/.easel/probe/ocr", {"x-easel-probe": "guess"}, 404),
    ]
    for path, more, expected in odd:
        url = yarl.URL(envoy.url + path, encoded=True)
        async with client.get(url, headers={"Authorization": "one", **more}) as answer:
            assert answer.status == expected, (path, answer.status, await answer.text())


async def test_a_service_named_in_a_header(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """gRPC's paths are fixed, so the service may be named in metadata; the model sees the original path."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    headers = {"Authorization": "tok", "x-easel-service": "ocr"}
    status, body = await ask(client, envoy, "/pkg.Model/Predict?x=1", headers)

    assert (status, '"/pkg.Model/Predict?x=1"' in body) == (200, True), body


async def test_the_probe_is_for_the_router_alone(xds: Rig, envoy: Envoy, client: aiohttp.ClientSession) -> None:
    """With the secret it answers the hash, without it is an unknown path."""
    await xds.acknowledged(xds.put(a_plan("ocr")))
    async with client.get(envoy.url + "/.easel/probe/ocr", headers={"x-easel-probe": PROBE_SECRET}) as answer:
        assert (answer.status, answer.headers[HASH_HEADER]) == (204, xds.hashes["ocr"])
    async with client.get(envoy.url + "/.easel/probe/ocr") as answer:
        assert (answer.status, HASH_HEADER in answer.headers) == (404, False)


async def answers(client: aiohttp.ClientSession, envoy: Envoy, path: str, token: str) -> list[int]:
    """Statuses of all forms of one token: as it is, Bearer, signed."""
    forms = ({"Authorization": token}, {"Authorization": f"Bearer {token}"}, signed(token, path))
    return [(await ask(client, envoy, path, headers))[0] for headers in forms]


async def test_any_of_several_tokens(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """In every form, also where the service is found by its name in a header or before a query."""
    more = (Token(name="partner", value=LONG), Token(name="till", value="till", expires_unix_s=int(time.time()) + 600))
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token=TOKEN, more=more)))
    for token in (TOKEN, LONG, "till"):
        for path in ("/api/predict/ocr", "/api/predict/ocr/x?a=b"):
            assert await answers(client, envoy, path.partition("?")[0], token) == [200] * 3, (token, path)
        query = signed(token, "/api/predict/ocr")
        assert (await ask(client, envoy, "/api/predict/ocr?a=b", query))[0] == 200
        named = {"Authorization": token, "x-easel-service": "ocr"}
        assert (await ask(client, envoy, "/pkg.Model/Predict", named))[0] == 200


async def test_none_of_several_tokens(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Wrong, empty, expired, cut short, lengthened, another service's: 401 in every form, and no replica is reached."""
    past = int(time.time()) - 1
    more = (
        Token(name="partner", value="partner-token", rate_limit_qps=5),
        Token(name="old", value="old-token", expires_unix_s=past),
    )
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, token=TOKEN, more=more)))
    await xds.acknowledged(xds.put(a_plan("other", servers[0].port, token="another", more=(Token(value="another2"),))))
    wrong = ["wrong", "old-token", "partner-toke", "partner-token2", "another", "another2", "partner", "0", "-", "5"]
    wrong += [TOKEN[:-1], TOKEN + "=", f"0 default {TOKEN}", f"{TOKEN} partner-token"]
    for path in ("/api/predict/ocr", "/api/predict/ocr/x"):
        for token in wrong:
            assert await answers(client, envoy, path, token) == [401] * 3, token
        for given in ("", "Bearer ", "Bearer", "EAS ", "EAS", "Basic partner-token"):
            assert (await ask(client, envoy, path, {"Authorization": given}))[0] == 401, given
        assert (await ask(client, envoy, path, {}))[0] == 401
    status, body = await ask(client, envoy, "/api/predict/ocr", {"Authorization": "Bearer old-token"})
    assert (status, "has expired" in body) == (401, True)

    assert sum(servers[0].executions.values()) == 0


async def test_a_token_expires_by_the_clock(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Nobody needs to tell Envoy; also where it is the only one of its service."""
    soon = int(time.time()) + 2
    plan = a_plan("ocr", servers[0].port)
    alone = msgspec.structs.replace(plan, tokens=(Token(value="soon", expires_unix_s=soon),))
    await xds.acknowledged(xds.put(alone))
    assert (await ask(client, envoy, "/api/predict/ocr", {"Authorization": "soon"}))[0] == 200
    while (found := await ask(client, envoy, "/api/predict/ocr", {"Authorization": "soon"}))[0] == 200:
        assert time.time() < soon + 5
        await asyncio.sleep(0.1)

    assert (found[0], "has expired" in found[1]) == (401, True)
    assert time.time() >= soon


async def test_the_tokens_name_is_known_where_one_is_limited(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """As dynamic metadata, which limits are told by; not where nobody asks for it."""
    limited = (Token(name="partner", value="two", rate_limit_qps=5),)
    found = []
    for service, more in (("ocr", limited), ("free", (Token(name="b", value="two"),))):
        plan = a_plan(service, servers[0].port, token="one", more=more)
        await xds.acknowledged(xds.put(plan))
        await xds.acknowledged({ROUTE: {service: xds.catalog.put(ROUTE, service, told(plan))}})
        for token in ("one", "two"):
            headers = {"Authorization": token}
            async with client.get(f"{envoy.url}/api/predict/{service}/", headers=headers) as answer:
                found.append((answer.status, answer.headers.get("x-token")))

    assert found == [(200, "default"), (200, "partner"), (200, None), (200, None)]


def told(plan: ServicePlan) -> bytes:
    """The service's scope, whose answers also say which token Envoy thinks it was."""
    scope = pb.ScopedRouteConfiguration.FromString(render(plan, PROBE_SECRET).by_type[ROUTE][plan.service])
    for route in scope.route_configuration.virtual_hosts[0].routes:
        route.response_headers_to_add.add(header=pb.HeaderValue(key="x-token", value="%DYNAMIC_METADATA(easel:token)%"))
    return scope.SerializeToString()
