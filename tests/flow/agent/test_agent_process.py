"""The agent as a process: over gRPC and NATS, killed and restarted."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import msgspec
import nats
import psutil
import pytest

from easel_contracts.metrics import NodeMetrics, ReplicaMetrics
from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import Mount, Resources, RevisionSpec, RunSpec
from easel_kit.grpc import channel
from easel_kit.testing import eventually, process_environment
from easel_proto.internal.v1 import agent_pb2, agent_pb2_grpc

SERVER = "python -m http.server $PORT"


class Scheduler:
    """Calls the agent as the scheduler would."""

    def __init__(self, directory: Path, process: str = "scheduler") -> None:
        token = (directory / f"{process}.token").read_text()
        self.channel = channel(f"unix:{directory}/agent.sock", token)
        self.stub: Any = agent_pb2_grpc.AgentStub(self.channel)

    async def start(self, name: str, *, token: int = 1, **revision: Any) -> None:
        """Start a replica."""
        made = RevisionSpec(number=1, resources=Resources(cpu=1, memory_mib=256), port=8000, **revision)
        run = RunSpec(workspace="default", service="svc", replica=name, revision=made)
        request = agent_pb2.StartRequest(fencing_token=token, replica_id=name, spec_msgpack=msgspec.msgpack.encode(run))
        await self.stub.Start(request, wait_for_ready=True, timeout=20)

    async def until(self, name: str, **wanted: Any) -> ReplicaReport:
        """Open a Watch and read until a report of the replica has these values."""
        watch = self.stub.Watch(agent_pb2.WatchRequest(heartbeat_s=1), wait_for_ready=True)
        async with asyncio.timeout(20):
            async for event in watch:
                if event.replica_msgpack:
                    report = msgspec.msgpack.decode(event.replica_msgpack, type=ReplicaReport)
                    if report.replica == name and all(getattr(report, key) == value for key, value in wanted.items()):
                        watch.cancel()
                        return report
        raise AssertionError("the watch ended")

    async def snapshot(self) -> dict[str, ReplicaReport]:
        """What Watch tells before `snapshot_done`."""
        found: dict[str, ReplicaReport] = {}
        watch = self.stub.Watch(agent_pb2.WatchRequest(heartbeat_s=1), wait_for_ready=True)
        async with asyncio.timeout(20):
            async for event in watch:
                if event.snapshot_done:
                    watch.cancel()
                    return found
                report = msgspec.msgpack.decode(event.replica_msgpack, type=ReplicaReport)
                found[report.replica] = report
        raise AssertionError("the watch ended")


@asynccontextmanager
async def agent(
    directory: Path, env: dict[str, str], prefix: tuple[str, ...] = ()
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A running agent process; ended at the end if it still runs."""
    with (directory / "agent.log").open("ab") as output:
        child = subprocess.Popen(  # noqa: ASYNC220 (returns at once)
            [*prefix, sys.executable, "-m", "easel_agent"], env={**os.environ, **env}, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(child.wait, 20)


@pytest.fixture
def env(short_path: Path, nats_url: str) -> dict[str, str]:
    """The agent's environment."""
    return process_environment(short_path, nats_url, {})["agent"]


async def test_start_watch_stop_over_grpc(short_path: Path, env: dict[str, str]) -> None:
    """The whole way, and the description of the node."""
    async with agent(short_path, env):
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", command=SERVER)
        report = await scheduler.until("svc-1-aaaaa", ready=True)
        node = await scheduler.stub.Describe(agent_pb2.DescribeRequest())

        stop = agent_pb2.StopRequest(fencing_token=1, replica_id="svc-1-aaaaa", grace_s=1, idle=True)
        assert (await scheduler.stub.Stop(stop)).known
        await scheduler.until("svc-1-aaaaa", phase="stopped")

    assert report.agent_run_id == node.agent_run_id
    assert node.cpu >= 1
    assert node.memory_mib > 256
    assert node.isolation
    assert not psutil.pid_exists(report.pid or 0)


async def gauges(address: str) -> dict[str, float]:
    """What /metrics says, by name."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(address.removeprefix("unix:"))) as session,
        session.get("http://agent/metrics") as answer,
    ):
        lines = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_metrics_tell_failed_starts_and_watchers(short_path: Path, env: dict[str, str]) -> None:
    """A program that exits before it is ready counts each time; a scheduler that watches is one watcher."""
    async with agent(short_path, env):
        scheduler = Scheduler(short_path)
        watch = scheduler.stub.Watch(agent_pb2.WatchRequest(heartbeat_s=1), wait_for_ready=True)
        await watch.read()
        before = await gauges(env["EASEL_HEALTH_ADDR"])
        await scheduler.start("svc-1-aaaaa", command="/bin/false")

        async def failed() -> bool:
            return (await gauges(env["EASEL_HEALTH_ADDR"]))["easel_starts_failed"] >= 1

        await eventually(failed)
        after = await gauges(env["EASEL_HEALTH_ADDR"])
        watch.cancel()

        async def alone() -> bool:
            return (await gauges(env["EASEL_HEALTH_ADDR"]))["easel_watchers"] == 0

        await eventually(alone)

    assert (before["easel_starts_failed"], before["easel_watchers"], before["easel_environments_building"]) == (0, 1, 0)
    assert after["easel_watchers"] == 1


async def test_only_the_scheduler_may_call(short_path: Path, env: dict[str, str]) -> None:
    """No token, another process's token: refused."""
    async with agent(short_path, env):
        scheduler, other = Scheduler(short_path), Scheduler(short_path, "monitor")
        await scheduler.stub.Describe(agent_pb2.DescribeRequest(), wait_for_ready=True, timeout=20)
        nobody = channel(f"unix:{short_path}/agent.sock")
        stranger: Any = agent_pb2_grpc.AgentStub(nobody)

        for stub in (stranger, other.stub):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Describe(agent_pb2.DescribeRequest())
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_an_old_fencing_token_is_refused_also_after_a_restart(short_path: Path, env: dict[str, str]) -> None:
    """The highest token is remembered durably."""
    async with agent(short_path, env):
        await Scheduler(short_path).start("svc-1-aaaaa", token=7, command=SERVER)
    async with agent(short_path, env):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Scheduler(short_path).start("svc-1-bbbbb", token=6, command=SERVER)

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_scheduler_that_comes_back_finds_the_same_replicas(short_path: Path, env: dict[str, str]) -> None:
    """Adoption: not restarted, not unready."""
    async with agent(short_path, env):
        first = Scheduler(short_path)
        await first.start("svc-1-aaaaa", command=SERVER)
        before = await first.until("svc-1-aaaaa", ready=True)
        await first.channel.close(None)

        again = Scheduler(short_path)
        await again.start("svc-1-aaaaa", token=2, command=SERVER)
        found = await again.snapshot()

    assert found["svc-1-aaaaa"] == before


async def test_a_soft_restart_survives_its_scheduler(short_path: Path, env: dict[str, str]) -> None:
    """Asked for by a scheduler that goes away at once: the next one finds its number; an old one is refused."""

    def restart(number: int, token: int) -> agent_pb2.RestartRequest:
        return agent_pb2.RestartRequest(
            fencing_token=token, replica_id="svc-1-aaaaa", number=number, grace_s=1, sigterm=True
        )

    async with agent(short_path, env):
        first = Scheduler(short_path)
        await first.start("svc-1-aaaaa", command=SERVER)
        before = await first.until("svc-1-aaaaa", ready=True)
        assert (await first.stub.Restart(restart(7, 1))).known
        await first.channel.close(None)

        second = Scheduler(short_path)
        after = await second.until("svc-1-aaaaa", ready=True, restart_number=7)
        assert (await second.stub.Restart(restart(7, 2))).known
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.stub.Restart(restart(8, 1))
        found = await second.snapshot()

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert found["svc-1-aaaaa"] == after
    assert (after.port, after.restarts) == (before.port, 0)
    assert after.pid != before.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_replicas_die_with_the_agent(short_path: Path, env: dict[str, str], number: signal.Signals) -> None:
    """Also those of their processes that left group and session; the next agent begins empty and clean."""
    script = "setsid setsid sleep 321 & " + SERVER
    async with agent(short_path, env) as process:
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", script=script)
        report = await scheduler.until("svc-1-aaaaa", ready=True)
        below = psutil.Process(process.pid).children(recursive=True)
        assert len(below) >= 3

        process.send_signal(number)
        await asyncio.to_thread(process.wait, 20)
        await eventually(lambda: not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])

    async with agent(short_path, env):
        scheduler = Scheduler(short_path)
        node = await scheduler.stub.Describe(agent_pb2.DescribeRequest(), wait_for_ready=True, timeout=20)
        assert await scheduler.snapshot() == {}
        assert not (short_path / "agent" / "replicas" / "svc-1-aaaaa").exists()

    assert node.agent_run_id != report.agent_run_id


async def test_metrics_once_a_second(short_path: Path, env: dict[str, str], nats_url: str) -> None:
    """Of the node and of each replica, on core NATS."""
    client = await nats.connect(nats_url)
    seen: list[ReplicaMetrics | NodeMetrics] = []

    async def on_replica(message: Any) -> None:
        seen.append(msgspec.msgpack.decode(message.data, type=ReplicaMetrics))

    async def on_node(message: Any) -> None:
        seen.append(msgspec.msgpack.decode(message.data, type=NodeMetrics))

    await client.subscribe("easel.metric.default.replica.*", cb=on_replica)
    await client.subscribe("easel.metric.default.node.*", cb=on_node)
    async with agent(short_path, env):
        await Scheduler(short_path).start("svc-1-aaaaa", command=SERVER)
        await eventually(lambda: {type(found) for found in seen} == {ReplicaMetrics, NodeMetrics})
    await client.close()

    replica = next(found for found in seen if isinstance(found, ReplicaMetrics))
    assert replica.replica == "svc-1-aaaaa"
    assert 1 < replica.memory_mib < 256


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="an ordinary user runs the others so")
async def test_an_ordinary_user_gets_the_same_and_is_told_the_truth(short_path: Path, env: dict[str, str]) -> None:
    """Not isolated, said so; ready all the same."""
    prefix = ("unshare", "-U", "--map-user=65534", "--map-group=65534")
    async with agent(short_path, env, prefix):
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", command=SERVER)
        report = await scheduler.until("svc-1-aaaaa", ready=True)
        node = await scheduler.stub.Describe(agent_pb2.DescribeRequest())

    assert node.isolation.startswith("not isolated: ")
    assert report.isolation == node.isolation
    assert node.can_mount or node.can_mount_why_not


NO_USER_NAMESPACES = """
import ctypes, os, sys
open("/proc/sys/user/max_user_namespaces", "w").write("0")
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Forbids further user namespaces below the one it runs in, gives up its rights, and becomes what follows."""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="makes an ordinary user of root")
async def test_an_ordinary_user_where_user_namespaces_are_forbidden(short_path: Path, env: dict[str, str]) -> None:
    """Nothing can be separated or mounted: told so with what would change it; what needs no mount runs."""
    forbid = (sys.executable, "-c", NO_USER_NAMESPACES)
    prefix = ("unshare", "-U", "--map-user=65534", "--map-group=65534", "--keep-caps", *forbid)
    async with agent(short_path, env, prefix):
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", command=SERVER)
        await scheduler.start("svc-1-bbbbb", command=SERVER, mounts=(Mount(mount_path="/mnt/x", host_path="/usr"),))
        await scheduler.until("svc-1-aaaaa", ready=True)
        refused = await scheduler.until("svc-1-bbbbb", phase="failed")
        node = await scheduler.stub.Describe(agent_pb2.DescribeRequest())

    assert node.isolation.startswith("not isolated: replicas run as the same user as Easel (unshare: No space left")
    assert (node.can_mount, "user.max_user_namespaces" in node.can_mount_why_not) == (False, True)
    assert (refused.cause, "user.max_user_namespaces" in refused.message) == ("mount", True)
