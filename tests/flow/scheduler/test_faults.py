"""Agents that die, fall silent or come back; a scheduler that is started again; a stale command."""

from __future__ import annotations

import asyncio
from pathlib import Path

from easel_kit.testing import eventually
from tests.flow.scheduler.fake_agent import FakeAgent
from tests.flow.scheduler.platform import Platform, platform
from tests.unit.scheduler.build import service


def agents(path: Path, count: int) -> list[FakeAgent]:
    return [FakeAgent(f"unix:{path}/fake{i}.sock", f"n{i}") for i in range(1, count + 1)]


async def serving(world: Platform, count: int) -> None:
    await world.tell("service", "created", "ocr", service(count))
    await world.until(count, "ready")


async def test_a_new_life_of_the_agent_replaces_its_replicas_at_once(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """What ran under the former agent is lost; replacements start without back-off."""
    (agent,) = agents(short_path, 1)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await serving(world, 2)
        before = set(agent.starts)
        await agent.die()
        await agent.serve()
        await world.until(2, "lost")
        ready = await world.until(2, "ready")
        assert {r.cause for r in await world.replicas("lost")} == {"AgentRestarted"}
        assert not before & {r.id for r in ready}
    await agent.cut()


async def test_a_cut_connection_loses_nothing(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Shorter than the lease: the same replicas, not started again, no fact about them."""
    (agent,) = agents(short_path, 1)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await serving(world, 2)
        await eventually(lambda: [f.verb for f in world.told if f.entity == "replica"].count("ready") == 2)
        told, watches = len(world.told), agent.watches
        await agent.cut()
        await agent.serve()
        await eventually(lambda: agent.watches > watches)
        await asyncio.sleep(0.5)  # nothing is to happen; this is the time for it

        assert len(await world.replicas("ready")) == 2
        assert len(agent.starts) == 2
        assert len(world.told) == told
    await agent.cut()


async def test_the_schedulers_restart_adopts(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Replicas live on; what changed meanwhile is taken over; an unknown one is stopped."""
    (agent,) = agents(short_path, 1)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await serving(world, 2)
        one, two = await world.replicas("ready")
        await world.kill()
        agent.report(one.id, phase="running", ready=False)
        agent.report("stranger-1-abcde", phase="running", ready=True)
        await world.start()
        await world.until(1, "unready")
        await eventually(lambda: [s.replica_id for s in agent.stops] == ["stranger-1-abcde"])

        assert len(agent.starts) == 2
        assert [r.id for r in await world.replicas("ready")] == [two.id]
    await agent.cut()


async def test_a_lost_nodes_replicas_move_and_its_leftovers_are_stopped(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Silent for less than the lease: kept; then not ready; then lost and replaced; on return they are orphans."""
    one, two = agents(short_path, 2)
    await one.serve()
    await two.serve()
    async with platform(short_path, nats_url, postgres_dsn, [one.address, two.address],
                        node_lease_s=0.6, node_lost_s=1.5) as world:  # fmt: skip
        await serving(world, 2)
        gone = next(r for r in await world.replicas("ready") if r.node == "n1")
        one.silent = True
        (lost,) = await world.until(1, "lost")
        assert (lost.id, lost.cause) == (gone.id, "NodeLost")
        ready = await world.until(2, "ready")
        assert {r.node for r in ready} == {"n2"}
        assert [f.verb for f in world.told if f.entity == "node" and f.key == "n1"] == ["ready", "not_ready", "lost"]

        one.silent = False
        await eventually(lambda: [s.replica_id for s in one.stops] == [gone.id])
        await eventually(lambda: [f.verb for f in world.told if f.entity == "node" and f.key == "n1"][-1] == "ready")
        assert {r.id for r in await world.replicas("ready")} == {r.id for r in ready}
    await one.cut()
    await two.cut()


async def test_a_start_that_got_lost_is_sent_again(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """An agent that is away when a replica is placed starts it when it is back."""
    (agent,) = agents(short_path, 1)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await agent.cut()
        await world.tell("service", "created", "ocr", service(1))
        await world.until(1, "placed")
        await agent.serve()
        await world.until(1, "ready")
        assert len(set(agent.starts)) == 1
    await agent.cut()


async def test_a_command_that_the_agent_refuses_changes_nothing(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """A fencing token that is too low: the replica stays placed until the token is good."""
    (agent,) = agents(short_path, 1)
    agent.highest = 10**9
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await world.tell("service", "created", "ocr", service(1))
        await eventually(lambda: len(agent.tokens) >= 2)
        assert [r.state for r in await world.replicas()] == ["placed"]
        assert not agent.starts
        agent.highest = 0
        await world.until(1, "ready")
    await agent.cut()


async def test_work_waits_for_control(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A service that was never heard of has no replicas and is no error; a route for it changes nothing."""
    (agent,) = agents(short_path, 1)
    await agent.serve()
    async with platform(short_path, nats_url, postgres_dsn, [agent.address]) as world:
        await world.route("nobody-1-abcde")
        await serving(world, 1)
        assert len(agent.starts) == 1
    await agent.cut()
