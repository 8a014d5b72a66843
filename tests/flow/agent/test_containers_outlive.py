"""Containers and the agent's own life: they outlive its crash and are adopted; told to end, it takes them along."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from pathlib import Path

import pytest

from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import Image
from easel_kit.testing import eventually
from easel_proto.internal.v1 import agent_pb2
from tests.docker_rig import SMALL_IMAGE, docker
from tests.flow.agent.test_agent_process import Scheduler, agent, env  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("small_image", "no_leftovers")]

SERVE = "i=0; while sleep 0.2; do i=$((i+1)); echo line $i; done & exec httpd -f -p $PORT"
IMAGE = Image(reference=SMALL_IMAGE, pull="Never")


def answers(report: ReplicaReport) -> bool:
    """Whether the replica is there for its callers."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{report.ip}:{report.port}/", timeout=2
        )
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


async def stop(scheduler: Scheduler, name: str) -> None:
    """End a replica and wait for that."""
    request = agent_pb2.StopRequest(fencing_token=1, replica_id=name, grace_s=1, idle=True)
    assert (await scheduler.stub.Stop(request)).known
    await scheduler.until(name, phase="stopped")


async def printed(scheduler: Scheduler, name: str) -> list[str]:
    """What its program wrote."""
    request = agent_pb2.LogsRequest(replica_id=name, tail_lines=-1)
    pieces = [piece async for piece in scheduler.stub.Logs(request)]
    return [line for piece in pieces if piece.stream == "stdout" for line in piece.data.decode().splitlines()]


async def test_adopted_after_a_crash(short_path: Path, env: dict[str, str]) -> None:  # noqa: F811
    """Ready in the first snapshot, with the same address and process; it answered meanwhile; logs go on."""
    async with agent(short_path, env) as process:
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", script=SERVE, image=IMAGE)
        await scheduler.start("svc-1-bbbbb", script="sleep 300", image=IMAGE)
        before = await scheduler.until("svc-1-aaaaa", ready=True)
        await eventually(lambda: docker("ps", "--quiet", "--filter", "name=svc-1-bbbbb"))
        process.kill()
        await asyncio.to_thread(process.wait, 20)
        assert answers(before)

    docker("rm", "--force", "svc-1-bbbbb")
    async with agent(short_path, env):
        scheduler = Scheduler(short_path)
        found = await scheduler.snapshot()
        after = found["svc-1-aaaaa"]

        assert set(found) == {"svc-1-aaaaa"}
        assert after.adopted
        assert after.agent_run_id != before.agent_run_id
        assert (after.ready, after.ip, after.port, after.pid) == (True, before.ip, before.port, before.pid)
        assert after.pins == before.pins

        async def logs_go_on() -> bool:
            lines = await printed(scheduler, "svc-1-aaaaa")
            numbers = [int(line.split()[1]) for line in lines]
            return len(numbers) > 20 and len(set(numbers)) == len(numbers)

        await eventually(logs_go_on)
        await scheduler.stub.Restart(agent_pb2.RestartRequest(fencing_token=1, replica_id="svc-1-aaaaa", number=1))
        again = await scheduler.until("svc-1-aaaaa", ready=True, restart_number=1)
        assert (again.ip, again.pid != before.pid) == (before.ip, True)
        await stop(scheduler, "svc-1-aaaaa")


async def test_one_that_ended_meanwhile_is_not_adopted(short_path: Path, env: dict[str, str]) -> None:  # noqa: F811
    """The next agent knows nothing of it, and nothing of it is left."""
    async with agent(short_path, env) as process:
        scheduler = Scheduler(short_path)
        await scheduler.start("svc-1-aaaaa", script=SERVE, image=IMAGE)
        await scheduler.until("svc-1-aaaaa", ready=True)
        process.kill()
        await asyncio.to_thread(process.wait, 20)
    docker("kill", "svc-1-aaaaa")

    async with agent(short_path, env):
        assert await Scheduler(short_path).snapshot() == {}
        assert docker("ps", "--all", "--quiet", "--filter", "name=svc-1-aaaaa") == ""


async def test_an_agent_that_is_told_to_end_takes_them_along(short_path: Path, env: dict[str, str]) -> None:  # noqa: F811
    """Containers and network (see `no_leftovers`)."""
    async with agent(short_path, env) as process:
        scheduler = Scheduler(short_path)
        for number in range(3):
            await scheduler.start(f"svc-1-{number}", script=SERVE, image=IMAGE)
        for number in range(3):
            await scheduler.until(f"svc-1-{number}", ready=True)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0

    assert docker("ps", "--all", "--quiet", "--filter", "name=svc-1-") == ""


async def test_what_the_node_says_of_its_engine(short_path: Path, env: dict[str, str]) -> None:  # noqa: F811
    """Its runtimes with the engine's version, and the engine's images."""
    async with agent(short_path, env):
        scheduler = Scheduler(short_path)
        node = await scheduler.stub.Describe(agent_pb2.DescribeRequest(), wait_for_ready=True, timeout=20)
        images = (await scheduler.stub.Images(agent_pb2.ImagesRequest())).images

    docker_ = next(runtime for runtime in node.runtimes if runtime.name == "docker")
    assert docker_.why_not == ""
    assert docker_.version.startswith("Docker ")
    assert any(SMALL_IMAGE in image.tags for image in images)
