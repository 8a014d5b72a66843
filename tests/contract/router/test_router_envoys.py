"""Several Envoys at one port, one that is replaced, one that dies: counted by clients that repeat nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from pathlib import Path

import pytest

from easel_router.decide.snapshot import Hold
from easel_router.hold import Asked, Go
from easel_router.testing import Envoy, Rig, a_plan, until
from easel_router.xds.clusters import grpc_cluster
from easel_standalone import ports as kernel
from easel_standalone.decide.gateways import Process, hot_restart, successor
from tests.flow.router.backends import Backend, runs
from tests.steady import Steady, steady

CONNECTION_LOST = {"IncompleteReadError", "ConnectionResetError", "BrokenPipeError"}
REFUSED = {"ConnectionRefusedError"}
MOVES = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
open("/proc/sys/net/ipv4/tcp_migrate_req", "w").write("1")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""In a new network namespace: lo is up, the kernel moves connections, then the program."""
DRAIN = ("--disable-hot-restart", "--drain-time-s", "1")


def ports(servers: list[Backend]) -> list[int]:
    return [server.port for server in servers]


async def requests(envoy: Envoy) -> int:
    """Answers it has given on the data listener."""
    stats = json.loads(await envoy.admin("/stats?format=json&filter=http.data.downstream_rq_2xx"))["stats"]
    return sum(stat["value"] for stat in stats if "value" in stat)


async def connections(envoy: Envoy) -> int:
    stats = json.loads(await envoy.admin("/stats?format=json&filter=http.data.downstream_cx_active"))["stats"]
    return sum(stat["value"] for stat in stats if "value" in stat)


async def two(xds: Rig) -> tuple[Envoy, Envoy]:
    """Two Envoys at one port."""
    first = await xds.envoy("envoy-0", 0, DRAIN)
    return first, await xds.envoy("envoy-1", first.data_port, DRAIN)


async def both_answer(load: Steady, *envoys: Envoy) -> None:
    """The kernel spreads connections over the listeners."""
    while not all([await requests(envoy) for envoy in envoys]):
        await load.answered_more(50)


async def test_one_of_two_is_drained(xds: Rig, servers: list[Backend]) -> None:
    """Its connections close after an answer. What may be lost: connections nobody had accepted when it closed its
    socket, unless the kernel moves them. They ran nothing, and are the reason why a gateway is not ended like this but
    handed over."""
    first, second = await two(xds)
    await xds.acknowledged(xds.put(a_plan("ocr", *ports(servers))))
    async with steady(first.data_port) as load:
        await both_answer(load, first, second)
        await first.admin("/drain_listeners?graceful", "POST")
        while first.pid in kernel.listening("127.0.0.1", first.data_port) or await connections(first):
            await load.answered_more(10)
        await first.stop(signal.SIGTERM)
        before = await requests(second)
        await load.answered_more(200)
        assert await requests(second) >= before + 200

    assert set(load.failed.values()) <= CONNECTION_LOST
    assert {runs(servers)[mark] for mark in load.failed} <= {0}
    assert len(load.failed) <= (0 if kernel.kernel_moves_connections() else 12)
    load.assert_nothing_ran_twice(runs(servers))


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own, where the kernel may be told so, needs root")
async def test_one_of_two_is_drained_where_the_kernel_moves_connections() -> None:
    """The test before, in a network namespace with net.ipv4.tcp_migrate_req: nothing is lost."""
    this = f"{__file__}::{test_one_of_two_is_drained.__name__}"
    process = await asyncio.create_subprocess_exec(
        "unshare", "-n", sys.executable, "-c", MOVES,
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()
    assert b"1 passed" in said


async def test_one_of_two_is_killed(xds: Rig, servers: list[Backend]) -> None:
    """Each client loses at most the request it had there; the other one answers all that follows."""
    first, second = await two(xds)
    await xds.acknowledged(xds.put(a_plan("ocr", *ports(servers))))
    async with steady(first.data_port) as load:
        await both_answer(load, first, second)
        await first.stop(signal.SIGKILL)
        await load.answered_more(300)
        failed = dict(load.failed)
        await load.answered_more(300)

    assert set(failed.values()) <= CONNECTION_LOST
    assert len({mark.partition("-")[0] for mark in failed}) == len(failed), "one request of a client at most"
    assert load.failed == failed, "failures went on"
    load.assert_nothing_ran_twice(runs(servers))


async def test_the_only_one_is_killed_and_started_again(xds: Rig, servers: list[Backend]) -> None:
    """Until it listens again connections break or are refused: no request is answered wrongly, none runs twice."""
    await xds.acknowledged(xds.put(a_plan("ocr", *ports(servers))))
    envoy = await xds.envoy()
    old = xds.server.streams[envoy.node_id]
    async with steady(envoy.data_port) as load:
        await load.answered_more(200)
        await envoy.stop(signal.SIGKILL)
        await until(lambda: "ConnectionRefusedError" in load.failed.values(), "nobody listens")
        await envoy.start(xds.config(envoy))
        await until(lambda: xds.server.streams.get(envoy.node_id) not in (None, old), "it is back")
        await load.answered_more(200)
        failed = dict(load.failed)
        await load.answered_more(200)

    assert set(failed.values()) <= CONNECTION_LOST | REFUSED
    assert load.failed == failed, "failures went on"
    load.assert_nothing_ran_twice(runs(servers))


class _Handing:
    """A gateway whose processes hand over, started as the supervisor starts them."""

    def __init__(self, xds: Rig, directory: Path) -> None:
        self._xds, self._sockets = xds, str(directory / "hot")
        self._process = Process(gateway="envoy-0", number=1, base_id=secrets.randbits(27))
        self._port = 0

    async def next(self) -> Envoy:
        """Its next process, which takes over from the last."""
        process = self._process
        self._process = successor(process, process.number + 1)
        arguments = hot_restart(process, self._sockets, grace_s=3600, drain_s=1)
        made = await self._xds.envoy(process.node_id, self._port, arguments, older=process.older)
        self._port = made.data_port
        return made

    def forget(self) -> None:
        (Path("/dev/shm") / self._process.shared_memory).unlink(missing_ok=True)


async def test_a_process_hands_over_to_its_successor(xds: Rig, servers: list[Backend], short_path: Path) -> None:
    """Three times, under load: no request fails, not even one whose connection waits to be accepted."""
    gateway = _Handing(xds, short_path)
    await xds.acknowledged(xds.put(a_plan("ocr", *ports(servers))))
    present = await gateway.next()
    try:
        async with steady(present.data_port) as load:
            for _ in range(3):
                await load.answered_more(200)
                before, present = present, await gateway.next()
                while await connections_of(before, load):
                    await load.answered_more(10)
            assert await requests(present) > 0
    finally:
        gateway.forget()

    assert load.failed == {}
    load.assert_nothing_ran_twice(runs(servers))


async def connections_of(envoy: Envoy, load: Steady) -> int:
    """Of a process whose admin interface is its successor's by now: as the kernel sees it."""
    await load.answered_more(1)
    return kernel.open_connections(envoy.pid, envoy.data_port) or 0


async def test_one_that_finishes_still_hears_the_router(xds: Rig, servers: list[Backend], short_path: Path) -> None:
    """A replica that drains meanwhile is not idle while the old process has a request there; that one is answered."""
    gateway = _Handing(xds, short_path)
    leaves, stays, _ = servers
    await xds.acknowledged(xds.put(a_plan("ocr", leaves.port)))
    old = await gateway.next()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", old.data_port)
        writer.write(b"GET /api/predict/ocr/wait HTTP/1.1\r\nhost: easel\r\nauthorization: tok\r\n\r\n")
        await until(lambda: leaves.active == 1, "in flight")
        new = await gateway.next()
        assert set(xds.server.streams) == {old.node_id, new.node_id}
        await xds.acknowledged(xds.put(a_plan("ocr", leaves.port, stays.port, draining=(leaves.port,))))
        clusters, address = ("ocr", grpc_cluster("ocr")), ("127.0.0.1", leaves.port)
        with xds.loads.watching(clusters):
            busy = [await asyncio.wait_for(xds.loads.next_in_flight(e.node_id, clusters, address), 10)
                    for e in (old, new)]  # fmt: skip
            leaves.release()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            idle = await asyncio.wait_for(xds.loads.next_in_flight(old.node_id, clusters, address), 10)
        writer.close()
    finally:
        gateway.forget()

    assert (busy, idle) == ([1, 0], 0)


async def test_held_requests_outlive_their_gateways_successor(
    xds: Rig, servers: list[Backend], short_path: Path
) -> None:
    """Those that wait in the old process and those that come to the new one are answered when a replica is there."""
    gateway, released = _Handing(xds, short_path), asyncio.Event()

    async def wait(asked: Asked) -> Go:
        await released.wait()
        return Go(left_s=60.0)

    xds.answer = wait
    await xds.acknowledged(xds.put(a_plan("ocr", hold=Hold(max_requests=100), keepalive_ms=60_000)))
    old = await gateway.next()
    try:
        async with steady(old.data_port, keeping=3, connecting=3) as load:
            await until(lambda: len(xds.asked) == 6, "held")
            await gateway.next()
            async with steady(old.data_port, name="new", keeping=3, connecting=3) as more:
                await until(lambda: len(xds.asked) == 12, "held by both")
                await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, keepalive_ms=60_000)))
                released.set()
                await load.answered_more(6)
                await more.answered_more(6)
    finally:
        gateway.forget()

    assert (load.failed, more.failed) == ({}, {})
    for those in (load, more):
        those.assert_nothing_ran_twice(runs(servers))
