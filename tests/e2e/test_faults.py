"""`kill -9` of every part in turn during a steady load: services keep answering, state converges, no fact is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from tests.e2e.churn import churning
from tests.e2e.consistency import assert_consistent
from tests.e2e.load import steady_load
from tests.e2e.platform import Platform, deploy, remove, running_platform, spec

CLIENTS = 4


@pytest.fixture
async def service(easel: Client) -> AsyncIterator[Any]:
    """A service of two replicas."""
    found = await deploy(easel, spec("faulty", instance=2))
    yield found
    await remove(easel, "faulty")


async def ready(easel: Client, name: str = "faulty") -> list[Any]:
    return [r for r in await easel.replicas.list(name) if r.ready]


@pytest.mark.parametrize("part", ["control", "scheduler", "autoscaler", "router", "monitor", "nats", "postgres"])
async def test_no_request_fails_while_a_part_dies(platform: Platform, easel: Client, service: Any, part: str) -> None:
    """Envoy and the replicas serve on; the replicas are the same afterwards; the part does its work again."""
    before = {r.name: r.pid for r in await ready(easel)}
    async with steady_load(service.endpoint, service.token, clients=CLIENTS) as load:
        await load.answered_more(50)
        await platform.kill(part)
        await load.answered_more(200)

    assert load.failed() == []
    assert {r.name: r.pid for r in await ready(easel)} == before
    scaled = await easel.services.scale("faulty", 3)
    await easel.wait("faulty", generation=scaled.generation, timeout_s=90)
    await assert_consistent(platform.home)


@pytest.mark.timeout(300)
async def test_no_fact_is_lost_or_doubled_when_parts_die_during_changes(platform: Platform, easel: Client) -> None:
    """Three services are created, scaled, changed, stopped, started and deleted in the meantime.

    Each change that was answered counts once, however often it was asked for; outboxes, stream and every reader's
    projection agree in the end.
    """
    async with churning(easel, ["churn_a", "churn_b", "churn_c"]) as churns:
        for part in ("nats", "postgres", "control", "scheduler"):
            await platform.kill(part)

    found = await assert_consistent(platform.home)
    changes = sum(churn.changes for churn in churns)
    assert changes >= 3 * 6
    assert found.facts > changes
    for churn in churns:
        await churn.end()


async def test_a_killed_envoy_costs_its_open_connections_only(platform: Platform, easel: Client, service: Any) -> None:
    """Requests on its connections fail, and those that come before it listens again; then all is answered."""
    async with steady_load(service.endpoint, service.token, clients=CLIENTS) as load:
        await load.answered_more(50)
        await platform.kill("envoy")
        await load.answered_more(50)
        failed = len(load.failures)
        await load.answered_more(200)

    assert len(load.failures) == failed, "failures went on after Envoy answered again"
    assert all("Client" in what or "Connect" in what or "OSError" in what for what in load.failed())


async def test_a_killed_replica_costs_safe_requests_nothing(easel: Client, service: Any) -> None:
    """GETs in flight on it are retried on the other; it is replaced; each answer names how often it ran."""
    async with steady_load(service.endpoint, service.token, clients=CLIENTS, query="s=0.1") as load:
        await load.answered_more(20)
        victim = (await ready(easel))[0]
        os.kill(victim.pid, signal.SIGKILL)
        await load.answered_more(100)

    assert load.failed() == []

    async def healed() -> bool:
        return len([r for r in await ready(easel) if r.pid != victim.pid]) == 2

    await eventually(healed, 60)


async def test_a_killed_replica_costs_posts_at_most_those_in_flight(easel: Client, service: Any) -> None:
    """A POST without Idempotency-Key is not run twice: what was in flight on the victim fails, nothing else."""
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS, query="s=0.1") as load:
        await load.answered_more(20)
        victim = (await ready(easel))[0]
        os.kill(victim.pid, signal.SIGKILL)
        await load.answered_more(100)

    assert len(load.failures) <= CLIENTS, load.failed()
    assert set(load.executions.values()) == {1}


async def test_the_agents_replicas_are_replaced(platform: Platform, easel: Client, service: Any) -> None:
    """The agent's replicas die with it; new ones take over, and nothing of the old ones is left."""
    before = [r.pid for r in await ready(easel)]

    await platform.kill("agent")

    async def replaced() -> bool:
        now = await ready(easel)
        return len(now) == 2 and not {r.pid for r in now} & set(before)

    await eventually(replaced, 60)
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()]
    async with steady_load(service.endpoint, service.token, clients=1) as load:
        await load.answered_more(20)
    assert load.failed() == []


async def test_a_killed_supervisor_leaves_nothing_and_the_next_up_serves_again(tmp_path: Path) -> None:
    """kill -9 of the supervisor ends every process; `up` on the same data has the services serving again."""
    with running_platform(tmp_path / "home") as platform:
        async with platform.client() as client:
            await deploy(client, spec("again"))
            replicas = [r.pid for r in await client.replicas.list("again")]
        pids = [p["pid"] for p in platform.read("status") if p["pid"]]
        supervisor = platform.pid("supervisor")

        os.kill(supervisor, signal.SIGKILL)
        await eventually(lambda: not [p for p in [*pids, *replicas] if _alive(p)], 30)
        platform.up()

        async with platform.client() as client:
            service = await client.wait("again", timeout_s=60)
            assert service is not None
            async with steady_load(service.endpoint, service.token, clients=1) as load:
                await load.answered_more(5)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
