"""Groups on a real Envoy: one endpoint, several services, each request answered by one of them as if asked itself."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_contracts.spec import Match, Split, Sticky
from easel_router.decide.groups import GroupPlan
from easel_router.decide.snapshot import Hold
from easel_router.hold import Asked, Go
from easel_router.testing import PROBE_SECRET, Envoy, Rig, a_group, a_plan, free_port, until
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.groups import render_group
from easel_router.xds.messages import HASH_HEADER, ROUTE
from tests.contract.router.test_router_auth import signed
from tests.flow.router.backends import Backend

Client = aiohttp.ClientSession
AUTH = {"authorization": "group-tok"}


async def ask(
    client: Client, envoy: Envoy, path: str, method: str = "GET", headers: dict[str, str] | None = None, **more: Any
) -> tuple[int, dict[str, Any]]:
    async with client.request(method, envoy.url + path, headers=AUTH | (headers or {}), **more) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text.startswith("{") else {"text": text}


async def serve(xds: Rig, servers: list[Backend], **more: Any) -> GroupPlan:
    """The group `vision` of `a` and `b`, with a replica each."""
    plans = [a_plan(name, server.port, token=f"tok-{name}") for name, server in zip("ab", servers, strict=False)]
    for plan in plans:
        await xds.acknowledged(xds.put(plan))
    made = a_group("vision", *plans, **more)
    await xds.acknowledged(xds.put_group(made))
    return made


async def shared(client: Client, envoy: Envoy, times: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Which server answered how often."""
    answers = [await ask(client, envoy, "/api/predict/vision/x", headers=headers) for _ in range(times)]
    assert {status for status, _ in answers} == {200}, answers
    return Counter(body["name"] for _, body in answers)


async def test_a_group_is_its_members(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Every form of the path; the model sees what it would see at its own endpoint."""
    await serve(xds, servers)
    paths = {
        "/api/predict/vision": "/",
        "/api/predict/vision/": "/",
        "/api/predict/vision?a=b": "/?a=b",
        "/api/predict/vision/v1/x?a=%20b": "/v1/x?a=%20b",
        "/api/predict/vision.a": "/",
        "/api/predict/vision.a?a=b": "/?a=b",
        "/api/predict/vision.b/x": "/x",
    }
    for path, seen in paths.items():
        status, body = await ask(client, envoy, path, "POST", data=b"hello")
        assert (status, body.get("path"), body.get("body_bytes")) == (200, seen, 5), (path, body)
    names = {m: {(await ask(client, envoy, f"/api/predict/vision.{m}"))[1]["name"] for _ in range(10)} for m in "ab"}

    assert names == {"a": {servers[0].name}, "b": {servers[1].name}}
    assert (await ask(client, envoy, "/api/predict/a", headers={"authorization": "tok-a"}))[0] == 200


async def test_requests_are_shared_by_weight(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Far outside of what chance would do; and a weight of 0 is none."""
    await serve(xds, servers, weights={"a": 3, "b": 1})
    found = await shared(client, envoy, 800)
    assert 520 < found[servers[0].name] < 680, found  # 600 expected, 12 is the standard deviation
    await serve(xds, servers, weights={"a": 0, "b": 1})

    assert await shared(client, envoy, 100) == {servers[1].name: 100}


async def test_who_may_call_a_group(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Its token opens it and its members in it, not the members' own endpoints; a member's opens GROUP.SERVICE too."""
    await serve(xds, servers)
    forms = {
        ("/api/predict/vision", "group-tok"): 200,
        ("/api/predict/vision", "tok-a"): 401,
        ("/api/predict/vision", "group-to"): 401,
        ("/api/predict/vision.a", "group-tok"): 200,
        ("/api/predict/vision.a", "tok-a"): 200,
        ("/api/predict/vision.a", "tok-b"): 401,
        ("/api/predict/vision.b", "tok-a"): 401,
        ("/api/predict/a", "group-tok"): 401,
        ("/api/predict/vision.c", "group-tok"): 404,
        ("/api/predict/vision.", "group-tok"): 404,
        ("/x/y/vision", "group-tok"): 404,
    }
    for (path, token), expected in forms.items():
        plain = await ask(client, envoy, path, "POST", {"authorization": token}, data=b"hello")
        bearer = await ask(client, envoy, path, "POST", {"authorization": f"Bearer {token}"}, data=b"hello")
        eas = await ask(client, envoy, path, "POST", signed(token, path), data=b"hello")
        query = await ask(client, envoy, path + "?a=b", "POST", signed(token, path), data=b"hello")
        assert [status for status, _ in (plain, bearer, eas, query)] == [expected] * 4, (path, token)
    foreign = signed("group-tok", "/api/predict/a")
    assert (await ask(client, envoy, "/api/predict/vision", "POST", foreign, data=b"hello"))[0] == 401


async def test_a_group_that_nobody_takes_part_in(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """503 says what to do; the members' own endpoints work as ever."""
    await serve(xds, servers, standalone=("a", "b"))
    for path in ("/api/predict/vision", "/api/predict/vision?a=b", "/api/predict/vision/x"):
        status, body = await ask(client, envoy, path)
        assert (status, body["code"]) == (503, "NoMember")
        assert "no member of group vision" in body["message"]
        assert "`easel release SERVICE`" in body["hint"]

    assert (await ask(client, envoy, "/api/predict/vision.a"))[0] == 200


async def test_who_has_no_replica_is_left_out(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """As long as another has one."""
    plans = [a_plan("a", hold=Hold(max_requests=9)), a_plan("b", servers[1].port)]
    for plan in plans:
        await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(a_group("vision", *plans)))

    assert await shared(client, envoy, 30) == {servers[1].name: 30}
    assert xds.asked == []


@pytest.mark.parametrize("path", ["/api/predict/vision/x", "/api/predict/vision?a=b", "/api/predict/vision.b/x"])
async def test_a_request_is_held_where_none_has_a_replica(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, path: str
) -> None:
    """At the member that gets most; it goes on when that one has a replica, whatever the group's route says by then."""
    waiting = [a_plan("a", hold=Hold(max_requests=9)), a_plan("b", hold=Hold(max_requests=9))]
    for plan in waiting:
        await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(a_group("vision", *waiting, weights={"a": 1, "b": 2})))
    go = asyncio.Event()

    async def answer(asked: Asked) -> Go:
        await go.wait()
        return Go(left_s=60.0)

    xds.answer = answer
    held = asyncio.create_task(ask(client, envoy, path))
    await until(lambda: xds.asked, "the question came")
    assert [asked.service for asked in xds.asked] == ["b"]
    await xds.acknowledged(xds.put(a_plan("b", servers[1].port)))
    go.set()
    status, body = await held

    assert (status, body["name"]) == (200, servers[1].name)


async def test_the_members_limits_are_its_own(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """The time to the first byte, and what happens when a replica does not answer."""
    plans = [a_plan("a", servers[0].port, keepalive_ms=300), a_plan("b", free_port(), retry="off")]
    for plan in plans:
        await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(a_group("vision", *plans)))
    late = await ask(client, envoy, "/api/predict/vision.a/sleep?s=9", "POST")
    dead = await ask(client, envoy, "/api/predict/vision.b", "POST")

    assert (late[0], late[1]["code"], "0.3 s" in late[1]["message"]) == (408, "RequestTimeout", True)
    assert (dead[0], dead[1]["code"], "`easel w b`" in dead[1]["hint"]) == (503, "ReplicaUnreachable", True)


SPLIT = {"candidate": "b"}


async def test_a_canary_between_members(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """By weight, and by what a request carries whatever the weight."""
    names = [server.name for server in servers]
    await serve(xds, servers, split=Split(weight_permille=250), **SPLIT)
    found = await shared(client, envoy, 800)
    assert 140 < found[names[1]] < 260, found  # 200 expected, 12 is the standard deviation
    cases: list[tuple[Match, dict[str, str], dict[str, str]]] = [
        (Match(kind="header", name="x-lane", value="new one"), {"x-lane": "new one"}, {"x-lane": "new"}),
        (Match(kind="cookie", name="lane", value="new"), {"cookie": "a=b; lane=new"}, {"cookie": "lane=newer; x=new"}),
    ]
    for match, hit, miss in cases:
        await serve(xds, servers, split=Split(weight_permille=0, match=match), **SPLIT)
        assert await shared(client, envoy, 20, hit) == {names[1]: 20}
        assert await shared(client, envoy, 20, miss) == {names[0]: 20}
        assert await shared(client, envoy, 20) == {names[0]: 20}
    match = Match(kind="query", name="lane", value="new one")
    await serve(xds, servers, split=Split(weight_permille=0, match=match), **SPLIT)
    for query, name in (("?lane=new%20one", names[1]), ("?x=1&lane=new%20one", names[1]), ("?lane=new", names[0])):
        for path in ("/api/predict/vision", "/api/predict/vision/x"):
            assert (await ask(client, envoy, path + query))[1]["name"] == name
    await serve(xds, servers, split=Split(weight_permille=1000), **SPLIT)
    assert await shared(client, envoy, 20) == {names[1]: 20}


@pytest.mark.parametrize("kind", ["header", "cookie"])
async def test_a_caller_stays_on_its_side(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, kind: str
) -> None:
    """Whoever went to the candidate at a weight does so at every higher one; callers are spread by the weight."""

    def caller(n: int) -> dict[str, str]:
        return {"x-user": f"user-{n}"} if kind == "header" else {"cookie": f"a=b; x-user=user-{n}"}

    sticky = Sticky(kind="header" if kind == "header" else "cookie", name="x-user")
    chosen: list[set[int]] = []
    for permille in (100, 400):
        await serve(xds, servers, split=Split(weight_permille=permille, sticky=sticky), **SPLIT)
        sides = [await shared(client, envoy, 3, caller(n)) for n in range(150)]
        assert all(len(side) == 1 for side in sides)
        chosen.append({n for n, side in enumerate(sides) if servers[1].name in side})

    assert chosen[0] < chosen[1]
    assert 3 <= len(chosen[0]) <= 30
    assert 40 <= len(chosen[1]) <= 80


async def test_a_side_without_a_replica_gets_nothing(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Not even what `match` names."""
    match = Match(kind="header", name="x-lane", value="new")
    split = Split(weight_permille=500, match=match)
    alive, dead = a_plan("a", servers[0].port), a_plan("b", hold=Hold(max_requests=9))
    for plan in (alive, dead):
        await xds.acknowledged(xds.put(plan))
    for candidate in ("a", "b"):
        await xds.acknowledged(xds.put_group(a_group("vision", alive, dead, split=split, candidate=candidate)))
        assert await shared(client, envoy, 20, {"x-lane": "new"}) == {servers[0].name: 20}
        assert await shared(client, envoy, 20) == {servers[0].name: 20}


async def tells(xds: Rig, service: str) -> None:
    """The service's answers say as whose they are counted."""
    found = xds.catalog.get(ROUTE, service)
    assert found is not None
    scope = pb.ScopedRouteConfiguration.FromString(found.body)
    for route in scope.route_configuration.virtual_hosts[0].routes:
        value = "subject=%DYNAMIC_METADATA(easel:subject)% arm=%DYNAMIC_METADATA(easel:arm)%"
        route.response_headers_to_add.add(header=pb.HeaderValue(key="x-told", value=value))
    await xds.acknowledged({ROUTE: {service: xds.catalog.put(ROUTE, service, scope.SerializeToString())}})


async def counted_as(client: Client, envoy: Envoy) -> set[tuple[int, str | None]]:
    found = set()
    for path in ("/api/predict/vision/x", "/api/predict/vision?a=b"):
        async with client.get(envoy.url + path, headers=AUTH) as answer:
            found.add((answer.status, answer.headers.get("x-told")))
    return found


async def test_a_canary_tells_whose_request_it_was(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """As dynamic metadata, by which requests are logged; also where the group was found late."""
    for subject, expected in (("canary-1", "subject=canary-1 arm=candidate"), ("", "subject= arm=")):
        await serve(xds, servers, split=Split(weight_permille=1000, subject=subject), **SPLIT)
        await tells(xds, "b")
        assert await counted_as(client, envoy) == {(200, expected)}


async def test_a_members_own_canary_counts_the_groups_requests(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """As it counts those to its own endpoint."""
    plan = a_plan("b", servers[1].port, split=Split(weight_permille=0, subject="canary-2"))
    await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(a_group("vision", plan)))
    await tells(xds, "b")

    assert await counted_as(client, envoy) == {(200, "subject=canary-2 arm=")}


async def test_streams_and_sockets_go_through_a_group(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Server-sent events and WebSockets."""
    await serve(xds, servers)
    async with client.ws_connect(envoy.url + "/api/predict/vision/ws", headers=AUTH) as socket:
        await socket.send_str("hello")
        assert "hello" in (await socket.receive_str())
    async with client.get(envoy.url + "/api/predict/vision/sse?gap=0.01", headers=AUTH) as answer:
        assert (await answer.text()).count("data: ") == 5


async def test_the_probe_of_a_group(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """It answers the hash of all that is routed for it, to the router alone."""
    made = await serve(xds, servers)
    async with client.get(envoy.url + "/.easel/probe/vision", headers={"x-easel-probe": PROBE_SECRET}) as answer:
        assert (answer.status, answer.headers[HASH_HEADER]) == (204, render_group(made, PROBE_SECRET).hash)
    async with client.get(envoy.url + "/.easel/probe/vision", headers=AUTH) as answer:
        assert (answer.status, HASH_HEADER in answer.headers) == (404, False)


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers any call with what it got."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(unary)


@pytest.mark.parametrize("name", ["vision", "vision.a"])
async def test_grpc_calls_name_a_group(xds: Rig, envoy: Envoy, name: str) -> None:
    """In metadata, as they would name a service; errors have gRPC's own codes."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    plan = a_plan("a", server.add_insecure_port("127.0.0.1:0"), grpc=True)
    await server.start()
    await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(a_group("vision", plan)))
    codes = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.data_port}") as channel:
        call = channel.unary_unary("/pkg.Model/Predict", None, None)
        answer = await call(b"hi", metadata=(("authorization", "group-tok"), ("x-easel-service", name)))
        await xds.acknowledged(xds.put_group(a_group("vision", plan, standalone=("a",))))
        for token in ("wrong", "group-tok"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"hi", metadata=(("authorization", token), ("x-easel-service", "vision")))
            codes.append(refused.value.code())
    await server.stop(0)

    assert answer == b"hi"
    assert codes == [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE]
