"""Two copies of the scheduler, and a database that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil

from easel_kit.leases import SHARDS
from easel_kit.testing import eventually, real_postgres, short_directory
from tests.flow.scheduler.fake_agent import FakeAgent
from tests.flow.scheduler.platform import Platform, platform
from tests.unit.scheduler.build import service


@asynccontextmanager
async def second_copy(world: Platform, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another scheduler, as its own process, on the same stores and agents."""
    env = {**os.environ, **world.environment(), "EASEL_SCHEDULER_ADDR": f"unix:{path}/second.sock",
           "EASEL_HEALTH_ADDR": f"unix:{path}/second.health.sock"}  # fmt: skip
    with (path / "second.log").open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "easel_scheduler", env=env, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        await child.wait()


async def test_two_copies_share_the_work(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Whoever hears of a service, whoever holds the lease: each service is served, at once, by one replica."""
    agent = FakeAgent(f"unix:{short_path}/fake.sock", cpu=1000.0, memory_mib=100_000)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        assert world.process is not None
        leases = world.process.leases
        async with second_copy(world, short_path) as child:
            await eventually(lambda: leases.held() == SHARDS // 2)
            for number in range(12):
                await world.tell(
                    "service", "created", f"svc{number}", service(1, name=f"svc{number}", uid=f"u{number}")
                )
            await eventually(lambda: len(_ready(world)) == 12, 10)
            assert len(agent.starts) == len(set(agent.starts)) == 12

            child.send_signal(signal.SIGKILL)
            await child.wait()
            await eventually(lambda: leases.held() == SHARDS, 30)
            await world.tell("service", "created", "ocr", service(1))
            await world.until(1, "ready", deadline_s=30)
    await agent.cut()


def _ready(world: Platform) -> set[str]:
    return {f.key for f in world.told if f.entity == "replica" and f.verb == "ready"}


async def test_a_database_that_hangs_costs_no_replica(nats_url: str, short_path: Path) -> None:
    """Longer than the node's lease and the time to lose it: the agent beats, so the node and its replicas stay."""
    agent = FakeAgent(f"unix:{short_path}/fake.sock")
    await agent.serve()
    with short_directory() as directory, real_postgres(directory) as dsn:
        async with platform(short_path, nats_url, dsn, [agent.address], node_lease_s=0.4, node_lost_s=0.8,
                            resync_s=0.2) as world:  # fmt: skip
            await world.tell("service", "created", "ocr", service(2))
            before = {r.id for r in await world.until(2, "ready")}
            with hanging(directory):
                await asyncio.sleep(2.5)  # nothing is to happen; this is the time for it
            await world.tell("service", "scaled", "ocr", service(3, generation=2, instance_generation=2), 2)
            after = {r.id for r in await world.until(3, "ready")}

            assert before < after
            assert [f.verb for f in world.told if f.entity == "node"] == ["ready"]
            assert not await world.replicas("lost", "failed", "stopped")
    await agent.cut()


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """Stops every process of the database, and lets them go on."""
    postmaster = psutil.Process(_postmaster(directory))
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def _postmaster(directory: Path) -> int:
    return int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])
