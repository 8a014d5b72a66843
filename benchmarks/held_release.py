"""Part one of held_requests.py: from a replica's acknowledgement to each held request at the replica."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from acknowledgements import Relay, relay
from measuring import quantile, verdict
from msgspec import Struct

from easel_kit.grpc import channel
from easel_kit.testing import (
    accepts,
    eventually,
    free_port,
    fresh_database,
    fresh_streams,
    real_nats,
    real_postgres,
    short_directory,
)
from easel_proto.v1 import routes_pb2, routes_pb2_grpc
from easel_router.subscriptions import LISTENS
from tests.flow.router.platform import KEY, Platform

GATE_MS = 30.0
WAITING = {1: 1.0, 200: 1 / 6, 2_000: 1 / 20}
"""Requests that wait → rounds, as a share of those with one."""
SERVICE = "ocr"
SERVER = """
import asyncio, sys, time

async def answer(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            body = repr(time.perf_counter()).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()

asyncio.run(main())
"""


class Release(Struct, frozen=True):
    """One round, in ms."""

    to_acknowledged: float
    """From the replica's fact."""
    first: float
    """From the acknowledgement to the first request at the replica."""
    last: float
    """... to the last."""


async def measure(rounds: int) -> bool:
    """Whether the gates are met."""
    async with router_and_envoy() as (easel, seen), server() as port:
        await easel.service(SERVICE, reason="ScaledToZero")
        met = []
        for count, share in WAITING.items():
            found = [await released(easel, seen, port, count) for _ in range(max(3, int(rounds * share)) + 1)]
            met.append(report(count, found[1:]))  # the first opens connections and prepares statements
    return all(met)


async def released(easel: Platform, seen: Relay, port: int, count: int) -> Release:
    """So many requests wait, a replica comes, all are answered, the replica goes."""
    await easel.holding(SERVICE)
    asking = [asyncio.create_task(ask(easel.envoys[0].data_port)) for _ in range(count)]
    await waiting(easel, count)
    told_s = time.perf_counter()
    await easel.replica(SERVICE, port)
    arrived_s = sorted(await asyncio.gather(*asking))
    acknowledged_s = seen.last_before(arrived_s[0])
    if acknowledged_s < told_s:
        raise SystemExit("a request was released before Envoy had acknowledged its replica")
    known = len(easel.routes(SERVICE))
    await easel.replica(SERVICE, port, "stopped")
    await eventually(lambda: len(easel.routes(SERVICE)) > known)
    return Release(
        to_acknowledged=(acknowledged_s - told_s) * 1000,
        first=(arrived_s[0] - acknowledged_s) * 1000,
        last=(arrived_s[-1] - acknowledged_s) * 1000,
    )


async def ask(port: int) -> float:
    """One request; perf_counter() when it was at its replica."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /api/predict/{SERVICE} HTTP/1.1\r\nhost: bench\r\nauthorization: tok\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
    body = (await reader.readexactly(length)).decode()
    writer.close()
    if " 200 " not in head.split("\r\n", 1)[0]:
        raise SystemExit(f"a held request was not answered: {head.splitlines()[0]} {body}")
    return float(body)


async def waiting(easel: Platform, count: int) -> None:
    """Returns once so many requests wait at the router."""
    metadata = (("authorization", f"Bearer {KEY}"),)
    async with channel(easel.env["EASEL_ROUTER_ADDR"]) as opened:
        stub = routes_pb2_grpc.RoutesStub(opened)

        async def all_wait() -> bool:
            route = await stub.Get(routes_pb2.GetRouteRequest(name=SERVICE), metadata=metadata, timeout=10)
            return bool(route.held == count)

        await eventually(all_wait, 60)


def report(count: int, found: list[Release]) -> bool:
    print(f"{count} waiting, {len(found)} rounds:")
    for what, values in (
        ("replica.ready published → acknowledged", [one.to_acknowledged for one in found]),
        ("acknowledged → the first at the replica", [one.first for one in found]),
        ("acknowledged → the last at the replica", [one.last for one in found]),
    ):
        print(f"  {what:<40} p50 {quantile(values, 0.5):7.1f}, max {max(values):7.1f} ms")
    what = f"held request at its replica after the acknowledgement, {count} waiting (worst of {len(found)})"
    met = verdict(what, max(one.first for one in found), GATE_MS, "ms")
    sys.stdout.flush()
    return met


@asynccontextmanager
async def router_and_envoy() -> AsyncIterator[tuple[Platform, Relay]]:
    """A router, and an Envoy that reaches it through the relay."""
    with short_directory() as stores, short_directory() as path, real_nats(stores) as nats_url:
        (postgres := stores / "pg").mkdir()
        with real_postgres(postgres) as dsn:
            async with fresh_database(dsn, "easel_router") as dsns:
                await fresh_streams(nats_url, {"router": LISTENS})
                easel = Platform(path, nats_url, dsns["router"])
                await easel.open()
                try:
                    await easel.start_router()
                    async with relay(f"{path}/relay.sock", f"{path}/xds.sock") as seen:
                        easel.env["EASEL_ROUTER_XDS_ADDR"] = f"unix:{path}/relay.sock"  # the router has its own already
                        await easel.start_envoy()
                        yield easel, seen
                finally:
                    await easel.close()


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    """A model server that answers when a request's head was read; its port."""
    port = free_port()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, str(port))
    try:
        await eventually(partial(accepts, port))
        yield port
    finally:
        child.kill()
        await child.wait()
