"""Limits on a real Envoy: what passes, what is refused and how it is told, with one Envoy and with two."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from functools import partial

import pytest

from easel_contracts.spec import GatewayPolicy
from easel_kit.clock import SystemClock
from easel_kit.testing import eventually
from easel_router.decide.holding import Refuse, unreachable
from easel_router.decide.snapshot import Hold, Token
from easel_router.envoys import Envoys
from easel_router.hold import Asked
from easel_router.testing import PROBE_SECRET, Envoy, Rig, a_group, a_plan, free_port, until
from tests.contract.router.limited import AUTH, Client, ask, codes, counted, refused_of, waiting
from tests.flow.router.backends import Backend


async def test_a_rate_is_one_bucket_for_all_routes_and_for_those_with_a_token(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Strangers do not use it up; whatever the method and the way, requests count together."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=GatewayPolicy(rate_limit_qps=1))))
    strangers = await codes(client, envoy, "/api/predict/ocr", 5, headers={"authorization": "x"})
    first = await ask(client, envoy, "/api/predict/ocr", "POST")
    ways = [
        await ask(client, envoy, "/api/predict/ocr/x"),
        await ask(client, envoy, "/api/predict/ocr?x=1"),
        await ask(client, envoy, "/pkg.Model/Predict", "POST", {"x-easel-service": "ocr"}),
    ]

    assert strangers == {401: 5}
    assert first[0] == 200
    assert [status for status, _, _ in ways] == [429] * 3
    _, body, headers = ways[0]
    assert body["code"] == "TooManyRequests"
    assert "1 request a second" in body["message"]
    assert "rate_limit" in body["hint"]
    assert int(headers["retry-after"]) >= 1


async def test_a_rate_is_even(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """After the burst of a second's worth, no more than the rate passes, and not much less."""
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=GatewayPolicy(rate_limit_qps=20))))
    burst = await codes(client, envoy, "/api/predict/ocr", 60)
    passed, took_s = await flood(client, [envoy], "/api/predict/ocr", 2.0)

    assert 20 <= burst[200] <= 30  # what fills up while sixty requests are made
    assert 20 * took_s * 0.8 <= passed <= 20 * took_s + 20


async def flood(client: Client, envoys: list[Envoy], path: str, for_s: float) -> tuple[int, float]:
    """Asks all of them without a pause; how many passed, in how many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    passed = 0
    while loop.time() < began + for_s:
        answers = await asyncio.gather(*(ask(client, envoy, path) for envoy in envoys))
        passed += sum(status == 200 for status, _, _ in answers)
    return passed, loop.time() - began


async def test_in_flight_is_limited_and_those_who_leave_make_room(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=GatewayPolicy(concurrency_limit=3))))
    running = waiting(client, envoy, "ocr", 5)
    status, body, _ = (await refused_of(running, 2))[0]
    leaves, *stay = (task for task in running if not task.done())
    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 429
    leaves.cancel()
    async with asyncio.timeout(10):  # Envoy sees the closed connection a moment later
        while (await ask(client, envoy, "/api/predict/ocr"))[0] != 200:
            pass
    servers[0].release()

    assert (status, body["code"]) == (429, "TooManyRequests")
    assert "3 requests at a time" in body["message"]
    assert "concurrency_limit" in body["hint"]
    assert [status for status, _, _ in await asyncio.gather(*stay)] == [200, 200]


async def test_held_requests_are_in_flight_too(xds: Rig, envoy: Envoy, client: Client) -> None:
    """And nobody is asked about those that are refused."""
    released = asyncio.Event()

    async def wait(asked: Asked) -> Refuse:
        await released.wait()
        return unreachable(a_plan(asked.service))

    xds.answer = wait
    policy = GatewayPolicy(concurrency_limit=2)
    await xds.acknowledged(xds.put(a_plan("ocr", hold=Hold(max_requests=100), gateway=policy)))
    running = waiting(client, envoy, "ocr", 5)
    refused = await refused_of(running, 3)
    await until(lambda: len(xds.asked) == 2, "held")
    released.set()
    await asyncio.gather(*running)

    assert [status for status, _, _ in refused] == [429] * 3
    assert len(xds.asked) == 2


@pytest.mark.parametrize("change", ["replicas", "route"])
async def test_in_flight_is_limited_while_the_route_changes(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client, change: str
) -> None:
    """Replicas that come leave the filter's counter alone; where the route itself changes, the cluster still counts."""
    first, second, _ = servers
    policy = GatewayPolicy(concurrency_limit=3)
    await xds.acknowledged(xds.put(a_plan("ocr", first.port, gateway=policy)))
    running = waiting(client, envoy, "ocr", 3)
    await until(lambda: first.active == 3, "in flight")
    if change == "replicas":
        await xds.acknowledged(xds.put(a_plan("ocr", first.port, second.port, gateway=policy)))
    else:
        await xds.acknowledged(xds.put(a_plan("ocr", first.port, gateway=policy, keepalive_ms=12_345)))
    answers = [await ask(client, envoy, "/api/predict/ocr", method) for method in ("GET", "POST") for _ in range(10)]
    first.release()

    assert [(status, body["code"]) for status, body, _ in answers] == [(429, "TooManyRequests")] * 20
    assert [status for status, _, _ in await asyncio.gather(*running)] == [200] * 3
    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 200
    assert xds.asked == [], "a replica was taken for dead"


async def test_large_bodies_and_streams_pass_with_limits(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Larger than any buffer; longer and more silent than the time limit."""
    policy = GatewayPolicy(rate_limit_qps=100, concurrency_limit=10, worker_threads=4)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=policy, keepalive_ms=300)))
    status, body, _ = await ask(client, envoy, "/api/predict/ocr", "POST", data=b"x" * (20 << 20))
    events = await ask(client, envoy, "/api/predict/ocr/sse?gap=0.4", headers={"accept": "text/event-stream"})
    async with client.ws_connect(envoy.url + "/api/predict/ocr/ws?gap=0.5", headers=AUTH) as socket:
        await socket.send_str("one")
        assert await socket.receive_str() == "b0:one"

    assert (status, body["body_bytes"]) == (200, 20 << 20)
    assert events[1]["text"].count("data:") == 5


async def test_two_envoys_share_and_the_last_one_has_it_all(xds: Rig, servers: list[Backend], client: Client) -> None:
    """Together they let through what one may; once one that died counts no more, the other lets through as much."""
    envoys = Envoys(xds.server, SystemClock(), grace_s=0.3, probe_secret=PROBE_SECRET)
    told: list[int] = []

    def share(count: int) -> None:
        told.append(count)
        policy = GatewayPolicy(rate_limit_qps=40, concurrency_limit=4)
        xds.put(a_plan("ocr", servers[0].port, gateway=policy, envoys=max(1, count)))

    counting = asyncio.create_task(envoys.count(share))
    both = [await xds.envoy(), await xds.envoy("envoy-1")]
    await until(lambda: told[-1] == 2, "both count")
    await shares_are(both, 2)
    passed, took_s = await flood(client, both, "/api/predict/ocr", 2.0)
    await both[1].stop(signal.SIGKILL)
    await until(lambda: told[-1] == 1, "one counts")
    await shares_are(both[:1], 4)
    alone, alone_s = await flood(client, both[:1], "/api/predict/ocr", 2.0)
    counting.cancel()

    assert 40 * took_s * 0.8 <= passed <= 40 * (took_s + 1)
    assert 40 * alone_s * 0.8 <= alone <= 40 * (alone_s + 1)


async def shares_are(envoys: list[Envoy], requests: int) -> None:
    """Waits until each lets so many in flight at a time, which is when it has the newest route."""

    async def has_it(envoy: Envoy) -> bool:
        scopes = await envoy.admin("/config_dump?resource=dynamic_scoped_route_configs")
        return f'"max_concurrency_limit": {requests}' in scopes

    for envoy in envoys:
        await eventually(partial(has_it, envoy))


async def test_a_groups_limit_counts_before_the_members(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Both hold, by whichever way the group is named; who goes to the member directly meets its limit alone."""
    member = a_plan("ocr", servers[0].port, gateway=GatewayPolicy(rate_limit_qps=3))
    group = a_group("both", member, gateway=GatewayPolicy(rate_limit_qps=2))
    await xds.acknowledged(xds.put(member))
    await xds.acknowledged(xds.put_group(group))
    by_group = {"authorization": "group-tok"}
    first = await ask(client, envoy, "/api/predict/both/x", headers=by_group)
    late = await ask(client, envoy, "/x", headers=by_group | {"x-easel-service": "both"})
    refused = [
        await ask(client, envoy, "/api/predict/both/x", headers=by_group),
        await ask(client, envoy, "/x", headers=by_group | {"x-easel-service": "both"}),
    ]
    direct = [await ask(client, envoy, "/api/predict/ocr") for _ in range(2)]
    in_group = await ask(client, envoy, "/api/predict/both.ocr", headers=by_group)

    assert [first[0], late[0]] == [200, 200]
    assert {(status, body["message"].partition(": ")[2]) for status, body, _ in refused} == {
        (429, "2 requests a second")
    }
    assert [status for status, _, _ in direct] == [200, 429]
    assert (in_group[0], in_group[1]["message"].partition(": ")[2]) == (429, "3 requests a second")


async def test_a_groups_requests_in_flight(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Those of all members count together."""
    members = [a_plan(name, server.port) for name, server in zip(("ocr", "tts"), servers, strict=False)]
    for member in members:
        await xds.acknowledged(xds.put(member))
    group = a_group("both", *members, gateway=GatewayPolicy(concurrency_limit=4))
    await xds.acknowledged(xds.put_group(group))
    headers = {"authorization": "group-tok"}
    running = [asyncio.create_task(ask(client, envoy, "/api/predict/both/wait", headers=headers)) for _ in range(10)]
    refused = await refused_of(running, 6)
    await until(lambda: servers[0].active + servers[1].active == 4, "four in flight")
    for server in servers:
        server.release()

    assert {status for status, _, _ in refused} == {429}
    assert Counter(status for status, _, _ in await asyncio.gather(*running)) == {429: 6, 200: 4}


async def test_a_token_has_a_limit_of_its_own(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """What is refused for it takes nothing from the others, who have the limit of all."""
    slow = Token(name="slow", value="slow-tok", rate_limit_qps=1)
    policy = GatewayPolicy(rate_limit_qps=3)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, more=(slow,), gateway=policy)))
    with_slow = [await ask(client, envoy, "/api/predict/ocr", headers={"authorization": "slow-tok"}) for _ in range(6)]
    with_other = [await ask(client, envoy, "/api/predict/ocr") for _ in range(3)]

    assert [status for status, _, _ in with_slow] == [200] + [429] * 5
    assert "this token (slow)" in with_slow[1][1]["message"]
    assert int(with_slow[1][2]["retry-after"]) >= 1
    assert [status for status, _, _ in with_other] == [200, 200, 429]
    assert "3 requests a second" in with_other[2][1]["message"]


async def test_a_groups_token_has_a_limit_of_its_own(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """At the group's endpoint and at a member's in it; a token of the member with the same name is another."""
    member = a_plan("ocr", servers[0].port, more=(Token(name="slow", value="own-tok", rate_limit_qps=1),))
    slow = Token(name="slow", value="slow-tok", rate_limit_qps=1)
    await xds.acknowledged(xds.put(member))
    await xds.acknowledged(xds.put_group(a_group("both", member, more=(slow,))))
    codes = {
        (path, token): [
            (await ask(client, envoy, f"/api/predict/{path}", headers={"authorization": token}))[0] for _ in range(2)
        ]
        for path, token in (("both", "slow-tok"), ("both.ocr", "slow-tok"), ("both.ocr", "own-tok"))
    }
    free = [(await ask(client, envoy, "/api/predict/both", headers={"authorization": "group-tok"}))[0] for _ in "123"]

    assert set(map(tuple, codes.values())) == {(200, 429)}
    assert free == [200] * 3


async def test_refusals_are_counted_by_code(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """As the caller saw them; code 0 is one who left before the answer."""
    policy = GatewayPolicy(rate_limit_qps=2, worker_threads=1, max_queue_size=0)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=policy)))
    (working,) = waiting(client, envoy, "ocr", 1)
    await until(lambda: servers[0].active == 1, "at work")
    refused = [(await ask(client, envoy, "/api/predict/ocr"))[0] for _ in range(3)]
    working.cancel()

    await xds.acknowledged(xds.put(a_plan("free", servers[1].port)))
    assert (await ask(client, envoy, "/api/predict/free"))[0] == 200

    assert set(refused) == {450, 429}
    for code in (450, 429, 0):
        await eventually(partial(counted, envoy, f"code.{code}."))
    assert not await counted(envoy, "service.free")


async def test_the_routers_probes_take_nothing(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """Nor are they refused."""
    policy = GatewayPolicy(rate_limit_qps=1, concurrency_limit=1)
    member = a_plan("ocr", servers[0].port, gateway=policy)
    await xds.acknowledged(xds.put(member))
    await xds.acknowledged(xds.put_group(a_group("both", member, gateway=policy)))
    envoys = Envoys(xds.server, SystemClock(), grace_s=1.0, probe_secret=PROBE_SECRET)
    streams = list(xds.server.streams.values())
    async with asyncio.timeout(10):
        for name in ("ocr", "both") * 3:
            await envoys.probed(streams, name, xds.hashes[name])
    await envoys.close()

    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 200


async def test_a_web_applications_requests_count_together(xds: Rig, servers: list[Backend], client: Client) -> None:
    """Those by its host name and those by its path; whoever asks without a session is refused before."""
    port = free_port()
    envoy = await xds.envoy(web_addr=f"127.0.0.1:{port}")
    policy = GatewayPolicy(web=True, rate_limit_qps=2)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=policy)))

    async def by_host(**headers: str) -> int:
        headers |= {"host": f"ocr.localhost:{port}"}
        async with client.get(f"http://127.0.0.1:{port}/", headers=headers) as answer:
            return answer.status

    strangers = [await by_host() for _ in range(3)]
    found = [
        await by_host(authorization="tok"),
        (await ask(client, envoy, "/api/predict/ocr"))[0],
        await by_host(authorization="tok"),
        (await ask(client, envoy, "/api/predict/ocr"))[0],
    ]

    assert strangers == [401] * 3
    assert found == [200, 200, 429, 429]
