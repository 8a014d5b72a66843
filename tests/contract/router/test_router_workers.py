"""Workers per replica and the queue before them, on a real Envoy: never more at work, in order, none lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import grpc.aio

from easel_contracts.spec import GatewayPolicy, Split
from easel_kit.testing import eventually
from easel_router.hold import Asked, Go
from easel_router.testing import Envoy, Rig, a_plan, until
from tests.contract.router.limited import Answer, Client, ask, counted, refused_of, waiting
from tests.flow.router.backends import Backend


async def waits(envoy: Envoy, service: str, count: int) -> bool:
    """Whether so many requests wait for a replica."""
    return f"upstream_rq_pending_active: {count}\n" in await envoy.admin(f"/stats?filter=cluster.{service}.upstream_rq")


async def test_workers_and_queue(xds: Rig, envoy: Envoy, servers: list[Backend], client: Client) -> None:
    """A replica works on so many; so many more wait, first come first served; the rest is refused at once: nobody asks
    the router about them, and the replica stays in."""
    replica = servers[0]
    policy = GatewayPolicy(worker_threads=1, max_queue_size=3)
    await xds.acknowledged(xds.put(a_plan("ocr", replica.port, gateway=policy)))
    working = waiting(client, envoy, "ocr", 1)
    await until(lambda: replica.active == 1 or working[0].done(), "at work")
    assert not working[0].done(), working[0].result()
    queued = []
    for n in range(3):
        queued.append(asyncio.create_task(ask(client, envoy, f"/api/predict/ocr/{n}")))
        await eventually(partial(waits, envoy, "ocr", len(queued)))
    refused = [await ask(client, envoy, "/api/predict/ocr", method) for method in ("GET", "POST") for _ in range(5)]
    assert replica.active == 1
    replica.release()
    answers = await asyncio.gather(*working, *queued)

    assert {(status, body["code"]) for status, body, _ in refused} == {(450, "QueueFull")}
    assert "1 at work and 3 waiting per replica, 1 in traffic" in refused[0][1]["message"]
    assert [status for status, _, _ in answers] == [200] * 4
    assert list(replica.executions) == ["/wait", "/0", "/1", "/2"]
    assert xds.asked == []
    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 200


class _Counting(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers when released; knows how many calls it works on at most."""

    def __init__(self) -> None:
        self.active = self.most = 0
        self.open = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            self.active += 1
            self.most = max(self.most, self.active)
            await self.open.wait()
            self.active -= 1
            return request

        return grpc.unary_unary_rpc_method_handler(unary)


async def test_workers_of_grpc(xds: Rig, envoy: Envoy) -> None:
    """One connection as wide as the limit: further calls wait, those beyond the queue are refused."""
    server, model = grpc.aio.server(), _Counting()
    server.add_generic_rpc_handlers((model,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    policy = GatewayPolicy(worker_threads=2, max_queue_size=3)
    await xds.acknowledged(xds.put(a_plan("ocr", port, grpc=True, gateway=policy)))
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.data_port}") as channel:
        method = channel.unary_unary("/pkg.Model/Predict", None, None)
        calls = [asyncio.ensure_future(_code(method(b"hi", metadata=metadata))) for _ in range(7)]
        await until(lambda: sum(call.done() for call in calls) == 2, "two are refused")
        await until(lambda: model.active == 2, "two at work")
        model.open.set()
        found = Counter(await asyncio.gather(*calls))
    await server.stop(0)

    assert model.most == 2
    assert found == {grpc.StatusCode.OK: 5, grpc.StatusCode.UNAVAILABLE: 2}
    await eventually(lambda: counted(envoy, "code.200.via.reached_concurrency_limit: 2"))


async def _code(call: Any) -> grpc.StatusCode:
    return grpc.StatusCode(await call.code())


async def test_who_waits_for_a_worker_of_a_dead_replica_is_answered_by_the_next(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """One at a time waits at the hold listener, as one at a time would be at work; none is lost."""
    dies, lives, _ = servers
    released = asyncio.Event()

    async def wait(asked: Asked) -> Go:
        await released.wait()
        return Go(left_s=60.0)

    xds.answer = wait
    policy = GatewayPolicy(worker_threads=1, max_queue_size=10)
    await xds.acknowledged(xds.put(a_plan("ocr", dies.port, gateway=policy)))
    running = waiting(client, envoy, "ocr", 4)
    await eventually(partial(waits, envoy, "ocr", 3))
    lives.release()
    await dies.stop()
    await until(lambda: xds.asked != [], "held")
    await xds.acknowledged(xds.put(a_plan("ocr", lives.port, gateway=policy)))
    released.set()

    assert [status for status, _, _ in await asyncio.gather(*running)] == [200] * 4
    assert lives.executions["/wait"] == 4


async def test_a_request_that_is_repeated_keeps_its_place(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """It is one request in flight, at whichever replica, and while it is held in between."""
    dies, lives, _ = servers
    released = asyncio.Event()

    async def wait(asked: Asked) -> Go:
        await released.wait()
        return Go(left_s=60.0)

    xds.answer = wait
    policy = GatewayPolicy(concurrency_limit=1)
    await xds.acknowledged(xds.put(a_plan("ocr", dies.port, gateway=policy)))
    (running,) = waiting(client, envoy, "ocr", 1)
    await until(lambda: dies.active == 1, "in flight")
    lives.release()
    await dies.stop()
    await until(lambda: xds.asked != [], "held")
    refused = await ask(client, envoy, "/api/predict/ocr")
    await xds.acknowledged(xds.put(a_plan("ocr", lives.port, gateway=policy)))
    released.set()

    assert (await running)[0] == 200
    assert refused[0] == 429
    assert (await ask(client, envoy, "/api/predict/ocr"))[0] == 200


async def test_workers_are_shared_by_two_envoys(xds: Rig, servers: list[Backend], client: Client) -> None:
    """Each has half of a replica's workers and of its queue; the text says that this is approximate."""
    policy = GatewayPolicy(worker_threads=2, max_queue_size=2)
    both = [await xds.envoy(), await xds.envoy("envoy-1")]
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, gateway=policy, envoys=2)))
    running = [task for envoy in both for task in waiting(client, envoy, "ocr", 4)]
    refused = await refused_of(running, 4)
    await until(lambda: servers[0].active == 2, "at work")
    servers[0].release()

    assert {status for status, _, _ in refused} == {450}
    assert "approximate" in refused[0][1]["message"]
    assert Counter(status for status, _, _ in await asyncio.gather(*running)) == {450: 4, 200: 4}


async def test_workers_stay_strict_while_routes_and_weights_change(
    xds: Rig, envoy: Envoy, servers: list[Backend], client: Client
) -> None:
    """Each replica of both sides works on one, whatever is pushed meanwhile; a new replica begins with its own."""
    stable, candidate, new = servers
    policy = GatewayPolicy(worker_threads=1, max_queue_size=50)
    running: list[asyncio.Task[Answer]] = []
    for weight, keepalive_ms, ports in (
        (500, 20_000, (stable.port,)),
        (800, 20_000, (stable.port,)),
        (800, 30_000, (stable.port,)),
        (200, 30_000, (stable.port, new.port)),
    ):
        split = Split(weight_permille=weight)
        await xds.acknowledged(
            xds.put(
                a_plan(
                    "ocr", *ports, candidates=(candidate.port,), split=split, gateway=policy, keepalive_ms=keepalive_ms
                )
            )
        )
        running += waiting(client, envoy, "ocr", 30)
        await until(lambda: stable.active == candidate.active == 1, "at work")
    await until(lambda: new.active == 1, "the new one too")
    assert [server.active for server in servers] == [1, 1, 1]
    for server in servers:
        server.release()

    assert [status for status, _, _ in await asyncio.gather(*running)] == [200] * len(running)
