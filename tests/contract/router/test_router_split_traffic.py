"""Requests split between two revisions on a real Envoy: shares, who is named, who stays, and what a dead side costs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import grpc.aio
import pytest

from easel_contracts.spec import Match, Split, Sticky
from easel_router.decide.snapshot import Hold
from easel_router.hold import Asked, Go
from easel_router.testing import Envoy, Rig, a_plan, free_port, until
from tests.flow.router.backends import Backend

Client = aiohttp.ClientSession
AUTH = {"authorization": "tok"}


async def answered(client: Client, envoy: Envoy, path: str = "/api/predict/ocr", **more: Any) -> str:
    """The name of who answered."""
    headers = AUTH | more.pop("headers", {})
    async with client.request(more.pop("method", "GET"), envoy.url + path, headers=headers, **more) as answer:
        text = await answer.text()
        assert answer.status == 200, (answer.status, text)
        return str(json.loads(text)["name"])


async def shares(client: Client, envoy: Envoy, requests: int, path: str = "/api/predict/ocr") -> Counter[str]:
    slots = asyncio.Semaphore(32)

    async def one() -> str:
        async with slots:
            return await answered(client, envoy, path)

    return Counter(await asyncio.gather(*(one() for _ in range(requests))))


async def test_the_share_is_right_and_a_change_of_weight_touches_no_cluster(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """From a tenth of a percent to all, under the same two clusters."""
    stable, candidate, _ = servers
    found = {}
    for permille in (0, 100, 900, 1000):
        wanted = xds.put(
            a_plan("ocr", stable.port, candidates=(candidate.port,), split=Split(weight_permille=permille))
        )
        await xds.acknowledged(wanted)
        found[permille] = (await shares(client, envoy, 1000))["b1"], wanted
    clusters = [{kind: of for kind, of in wanted.items() if "Scoped" not in kind} for _, wanted in found.values()]

    assert found[0][0] == 0
    assert 50 < found[100][0] < 160  # 5 standard deviations
    assert 840 < found[900][0] < 950
    assert found[1000][0] == 1000
    assert all(one == clusters[0] for one in clusters)


@pytest.mark.parametrize("kind", ["header", "cookie", "query"])
async def test_who_is_named_goes_to_the_candidate(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, kind: Any
) -> None:
    """Whatever the weight, whatever the method; a value that only begins like it does not count."""
    split = Split(weight_permille=0, match=Match(kind=kind, name="stage", value="beta"))
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))

    def request(value: str) -> dict[str, Any]:
        if kind == "query":
            return {"path": f"/api/predict/ocr/x?a=1&stage={value}"}
        if kind == "cookie":
            return {"headers": {"cookie": f"other=beta; stage={value}; more=1"}}
        return {"headers": {"stage": value}}

    for method in ("GET", "POST"):
        assert await answered(client, envoy, method=method, **request("beta")) == "b1"
        assert await answered(client, envoy, method=method, **request("beta2")) == "b0"
        assert await answered(client, envoy, method=method) == "b0"


@pytest.mark.parametrize("kind", ["header", "cookie", "query"])
async def test_a_caller_stays_and_growing_takes_nobody_back(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, kind: Any
) -> None:
    """The share of callers is the weight; who is at the candidate stays there while the weight grows."""
    callers = [f"user-{n}" for n in range(400)]

    async def sides(permille: int) -> dict[str, str]:
        split = Split(weight_permille=permille, sticky=Sticky(kind=kind, name="who"))
        await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))
        found = {}
        for caller in callers:
            if kind == "query":
                found[caller] = await answered(client, envoy, f"/api/predict/ocr/x?who={caller}")
            else:
                headers = {"cookie": f"a=b; who={caller}"} if kind == "cookie" else {"who": caller}
                found[caller] = await answered(client, envoy, headers=headers)
        return found

    few, again, many = await sides(200), await sides(200), await sides(600)
    at_candidate = {caller for caller, who in few.items() if who == "b1"}

    assert few == again
    assert 40 < len(at_candidate) < 120
    assert 180 < sum(who == "b1" for who in many.values()) < 300
    assert all(many[caller] == "b1" for caller in at_candidate)
    without = Counter([await answered(client, envoy) for _ in range(60)])
    assert set(without) == {"b0", "b1"}  # requests without it are decided by chance


async def test_a_caller_is_on_the_same_side_of_every_envoy(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """The hash has no seed."""
    other = await xds.envoy("envoy-1")
    split = Split(weight_permille=500, sticky=Sticky(kind="header", name="who"))
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))
    callers = [{"who": f"user-{n}"} for n in range(60)]
    first = [await answered(client, envoy, headers=who) for who in callers]
    second = [await answered(client, other, headers=who) for who in callers]

    assert first == second
    assert set(first) == {"b0", "b1"}


async def test_a_retry_finds_the_other_side(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Every replica of a side is dead, and nobody was told: the other answers, the router is not asked."""
    for dead in ((free_port(),), (free_port(), free_port())):
        split = Split(weight_permille=500)
        await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, servers[1].port, candidates=dead, split=split)))
        assert set(await shares(client, envoy, 200)) == {"b0", "b1"}
    assert xds.asked == []


async def test_a_retry_of_a_side_that_lost_its_last_replica(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """The request is at the candidate when that dies, and its endpoints are gone when it is tried again."""
    stable, candidate, _ = servers
    match = Match(kind="header", name="to", value="candidate")
    split = Split(weight_permille=100, match=match)
    await xds.acknowledged(xds.put(a_plan("ocr", stable.port, candidates=(candidate.port,), split=split)))
    stable.release()
    running = asyncio.create_task(answered(client, envoy, "/api/predict/ocr/wait", headers={"to": "candidate"}))
    await until(lambda: candidate.active == 1, "in flight")
    await xds.acknowledged(xds.put(a_plan("ocr", stable.port, split=split)))
    await candidate.stop()

    assert await running == "b0"


async def test_without_any_living_replica_a_request_waits(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """After both sides comes the hold listener; then either side will do."""
    split = Split(weight_permille=500)
    for dead in (1, 2):
        released = asyncio.Event()

        async def answer(asked: Asked, released: asyncio.Event = released) -> Go:
            await released.wait()
            return Go(left_s=60.0)

        xds.answer = answer
        xds.asked.clear()
        gone = [free_port() for _ in range(2 * dead)]
        await xds.acknowledged(xds.put(a_plan("ocr", *gone[:dead], candidates=tuple(gone[dead:]), split=split)))
        waiting = [asyncio.create_task(answered(client, envoy, method="POST")) for _ in range(20)]
        await until(lambda: len(xds.asked) >= 20, "all of them wait")
        assert all(asked.retried for asked in xds.asked)
        await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=tuple(gone[dead:]), split=split)))
        released.set()
        assert set(await asyncio.gather(*waiting)) == {"b0"}


async def test_while_nobody_takes_traffic_requests_are_held(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Held as ever; who comes back first answers, also a candidate alone."""
    split = Split(weight_permille=0, match=Match(kind="header", name="to", value="candidate"))
    released = asyncio.Event()

    async def answer(asked: Asked) -> Go:
        await released.wait()
        return Go(left_s=60.0)

    xds.answer = answer
    await xds.acknowledged(xds.put(a_plan("ocr", hold=Hold(max_requests=9), split=split)))
    waiting = [asyncio.create_task(answered(client, envoy, headers={"to": to})) for to in ("candidate", "any")]
    await until(lambda: len(xds.asked) == 2, "both wait")
    await xds.acknowledged(xds.put(a_plan("ocr", candidates=(servers[1].port,), split=split)))
    released.set()

    assert await asyncio.gather(*waiting) == ["b1", "b1"]


async def test_grpc_calls_are_split_too(xds: Rig, envoy: Envoy) -> None:
    """Each arm has its HTTP/2 twin."""
    ports, servers = [], []
    for name in (b"stable", b"candidate"):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Says(name),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        servers.append(server)
    split = Split(weight_permille=300, match=Match(kind="header", name="to", value="candidate"))
    await xds.acknowledged(xds.put(a_plan("ocr", ports[0], candidates=(ports[1],), split=split, grpc=True)))
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.data_port}") as channel:
        call = channel.unary_unary("/pkg.Model/Predict", None, None)
        found = Counter([await call(b"", metadata=metadata) for _ in range(200)])
        named = {await call(b"", metadata=(*metadata, ("to", "candidate"))) for _ in range(10)}
    for server in servers:
        await server.stop(0)

    assert 20 < found[b"candidate"] < 110
    assert named == {b"candidate"}


class _Says(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, name: bytes) -> None:
        self._name = name

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            return self._name

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_a_cluster_that_changes_alone_is_taken(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Its endpoints are sent again, or Envoy would wait for them for ever, and acknowledge no other cluster either."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port)))
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, keep_alive_s=1.0)))
    await xds.acknowledged(xds.put(a_plan("later", servers[1].port)))

    assert await answered(client, envoy) == "b0"
    assert await answered(client, envoy, "/api/predict/later") == "b1"
