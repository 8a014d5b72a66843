"""Containers: nodes that can run them, what a revision's tags name, agents that come back and find them running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from easel_contracts.facts import NodeState, ReplicaState, ServiceState, state_of
from easel_contracts.spec import Image, RevisionSpec
from easel_kit.projection import Projection
from easel_kit.testing import eventually
from easel_proto.internal.v1 import agent_pb2
from easel_proto.v1 import common_pb2, nodes_pb2, replicas_pb2
from easel_scheduler import links
from easel_scheduler.pins import Pins
from easel_scheduler.pruning import Pruning
from tests.flow.scheduler.fake_agent import FakeAgent
from tests.flow.scheduler.platform import AUTH, Platform, platform
from tests.unit.scheduler.build import revision, service

PATH = "containers[0].image"
DOCKER = agent_pb2.Runtime(name="docker", version="Docker 20.10.24, overlay2")
NO_DOCKER = agent_pb2.Runtime(name="docker", why_not="there is no socket at /run/docker.sock")
PROCESS = agent_pb2.Runtime(name="process")


def image(number: int = 1, **more: Any) -> RevisionSpec:
    """A revision that runs as a container."""
    return revision(number, image=Image(reference="registry.example.com/team/ocr:latest"), **more)


def engine(path: Path, node: str = "n1") -> FakeAgent:
    """An agent with a Docker engine."""
    agent = FakeAgent(f"unix:{path}/{node}.sock", node)
    agent.runtimes = [PROCESS, DOCKER]
    return agent


@asynccontextmanager
async def one_engine(path: Path, nats_url: str, dsn: str) -> AsyncIterator[tuple[Platform, FakeAgent]]:
    agent = engine(path)
    await agent.serve()
    async with platform(path, nats_url, dsn, [agent.address]) as found:
        yield found, agent
    await agent.cut()


# Where they run.


async def test_a_container_goes_where_an_engine_is(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The other node says why not; its facts say what it can run."""
    without, with_engine = FakeAgent(f"unix:{short_path}/n0.sock", "n0"), engine(short_path)
    without.runtimes, without.gpu = [PROCESS, NO_DOCKER], 2
    await without.serve()
    await with_engine.serve()
    async with platform(short_path, nats_url, postgres_dsn, [without.address, with_engine.address]) as world:
        await world.tell("service", "created", "ocr", service(2, image()))
        ready = await world.until(2, "ready")
        assert [r.node for r in ready] == ["n1", "n1"]
        await eventually(lambda: world.verbs(ready[0].id) == ["placed", "ready"])
        assert {world.state(f).runtime for f in world.told if f.entity == "replica"} == {"docker"}
        n0, n1 = (state_of(next(f for f in world.told if f.key == node), NodeState) for node in ("n0", "n1"))
        assert (n0.runtimes, n0.gpu, n1.runtimes) == (("process",), 2, ("process", "docker"))
        assert n1.capacity == "whole machine"
        async with world.api() as (replicas, nodes):
            lines = (await replicas.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=AUTH)).lines
            refused = next(line.message for line in lines if line.code == "Refused_runtime")
            assert "n0 did not take it: no Docker engine: there is no socket at /run/docker.sock" in refused
            node = await nodes.Get(nodes_pb2.GetNodeRequest(node="n0"), metadata=AUTH)
            assert [(r.name, r.why_not) for r in node.runtimes] == [("process", ""), ("docker", NO_DOCKER.why_not)]
            assert (node.gpu, node.capacity) == (2, "whole machine")
    await without.cut()
    await with_engine.cut()


@pytest.mark.parametrize("says_so", [True, False])
async def test_who_waits_for_an_engine_is_placed_when_one_is_there(
    short_path: Path, nats_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, *, says_so: bool
) -> None:
    """Its agent says that its node changed; where that word is lost, it is asked again after a while."""
    monkeypatch.setattr(links, "DESCRIBE_AGAIN_S", 600.0 if says_so else 0.2)
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.runtimes = [PROCESS, NO_DOCKER]
        agent.say_changed()
        await eventually(lambda: state_of(world.told[-1], NodeState).runtimes == ("process",))
        await world.tell("service", "created", "ocr", service(1, image()))
        (pending,) = await world.until(1, "pending")
        assert pending.cause == "NoRuntime"
        assert "n1: no Docker engine: there is no socket at /run/docker.sock" in pending.message

        agent.runtimes = [PROCESS, DOCKER]
        if says_so:
            agent.say_changed()
        await world.until(1, "ready")
        assert agent.watches == 1


# What they run.


async def test_later_replicas_run_what_the_first_found(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Told while it still fetches. A restart keeps it; a new revision looks its tag up again."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.outcome = lambda _: {"phase": "fetching", "pins": {PATH: "sha256:1"}}
        await world.tell("service", "created", "ocr", service(1, image()))
        (first,) = await world.until(1, "fetching")
        assert agent.specs[first.id].pins == {}
        agent.outcome = running("sha256:9")
        agent.report(first.id, phase="running", ready=True)
        await world.tell("service", "scaled", "ocr", service(2, image(), generation=2, instance_generation=2), 2)
        ready = await world.until(2, "ready")
        assert [agent.specs[r.id].pins for r in ready] == [{}, {PATH: "sha256:1"}]
        assert [r.pins for r in ready] == [{PATH: "sha256:1"}] * 2
        await eventually(lambda: all(told(world, r.id)[-1].pins == {PATH: "sha256:1"} for r in ready))
        async with world.api() as (replicas, _):
            listed = await replicas.List(replicas_pb2.ListReplicasRequest(service="ocr"), metadata=AUTH)
            assert [(dict(r.pins), r.runtime) for r in listed.replicas] == [({PATH: "sha256:1"}, "docker")] * 2

        known = set(agent.specs)
        await world.route(*(r.id for r in ready))
        again = service(2, image(restart_nonce=1), generation=3, instance_generation=2)
        await world.tell("service", "restarted", "ocr", again, 3)
        await eventually(lambda: len(agent.specs) > len(known))
        assert agent.specs[(set(agent.specs) - known).pop()].pins == {PATH: "sha256:1"}
        await world.tell("service", "updated", "ocr", service(2, image(2), generation=4, instance_generation=2), 4)
        await eventually(lambda: any(agent.specs[r].revision.number == 2 for r in agent.specs))
        assert next(spec for spec in agent.specs.values() if spec.revision.number == 2).pins == {}


async def test_one_that_found_something_else_is_replaced_at_once(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """The tag moved between two first replicas: the later answer gives way, with a sentence, and nothing waits."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.outcome = lambda spec: running("never")(spec) if spec.pins else None
        await world.tell("service", "created", "ocr", service(2, image()))
        await eventually(lambda: len(agent.starts) == 2)
        one, two = agent.starts
        agent.report(one, phase="running", ready=True, pins={PATH: "sha256:1"})
        await world.until(1, "ready")
        agent.report(two, phase="fetching", pins={PATH: "sha256:2"})

        (moved,) = await world.until(1, "lost")
        assert (moved.id, moved.cause) == (two, "SourceMoved")
        assert "this one found sha256:2, the revision runs sha256:1" in moved.message
        ready = await world.until(2, "ready")
        assert {r.pins[PATH] for r in ready} == {"sha256:1"}
        await eventually(lambda: two in [s.replica_id for s in agent.stops])
        assert len(agent.starts) == 3


async def test_pins_go_with_their_service(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Not with its replicas, not while one drains, and not while control has not said so."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.outcome = running("sha256:1")
        await world.tell("service", "created", "ocr", service(1, image()))
        (only,) = await world.until(1, "ready")
        assert world.process is not None
        pins, prune = Pins(world.process.db, "default"), pruning(world)
        await world.tell("service", "stopped", "ocr", service(1, image(), wanted="stopped", generation=2), 2)
        await world.until(1, "draining")
        await prune.pins()
        assert await pins.of(only) == {PATH: "sha256:1"}
        await world.tell("service", "deleted", "ocr", service(1, image(), wanted="deleted", generation=3), 3)
        await eventually(lambda: deleted(world))
        await prune.pins()
        assert await pins.of(only) == {PATH: "sha256:1"}

        await world.drained(only.id)
        await world.until(1, "stopped")
        await prune.pins()
        assert await pins.of(only) == {}


def running(found: str) -> Any:
    """Ready at once, with what it was told to run, or what it found."""
    return lambda spec: {"phase": "running", "ready": True, "pins": {PATH: found, **spec.pins}}


def pruning(world: Platform) -> Pruning:
    assert world.process is not None
    db, settings = world.process.db, world.process.settings
    services = Projection(db, "service", ServiceState)
    return Pruning(world.store, Pins(db, settings.workspace), services, settings, lambda _loop, _key: None)


async def deleted(world: Platform) -> bool:
    assert world.process is not None
    found = await Projection(world.process.db, "service", ServiceState).get("ocr")
    return found is not None and found.wanted == "deleted"


# Agents that come back.


async def test_what_the_agents_next_life_adopts_goes_on(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """No new replica, none told unready; a changed address is told."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(2, image()))
        one, two = await world.until(2, "ready")
        await agent.crash(one.id, two.id)
        agent.report(two.id, phase="running", ready=True, ip="172.20.0.9")
        await agent.serve()
        await eventually(lambda: runs(world, "run-2", 2))

        assert [r.id for r in await world.until(2, "ready")] == [one.id, two.id]
        assert len(agent.starts) == 2
        await eventually(lambda: told(world, two.id)[-1].endpoints[0].ip == "172.20.0.9")
        assert {state.state for r in (one, two) for state in told(world, r.id)} == {"placed", "ready"}
        agent.report(one.id, phase="running", ready=False, cause="probe")
        await world.until(1, "unready")


async def test_what_it_does_not_adopt_is_lost(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Only that one is replaced, at once."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(2, image()))
        one, two = await world.until(2, "ready")
        await agent.crash(one.id)
        await agent.serve()
        (lost,) = await world.until(1, "lost")
        assert (lost.id, lost.cause) == (two.id, "AgentRestarted")
        ready = await world.until(2, "ready")
        assert one.id in [r.id for r in ready]
        assert len(agent.starts) == 3


async def test_nothing_is_lost_before_the_agent_has_told_all(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """The new life is known by its description; what it has, only at the end of its snapshot."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1, image()))
        (only,) = await world.until(1, "ready")
        await agent.crash(only.id)
        agent.tells_all.clear()
        await agent.serve()
        await eventually(lambda: any(f.cause.reason == "AgentRestarted" for f in world.told if f.entity == "node"))
        assert world.process is not None
        async with world.process.db.connection() as connection:  # the loop looks at it now, too
            await connection.execute("SELECT pg_notify('scheduler_wakes', $1)", f"lives {only.id}")
        await eventually(lambda: runs(world, "run-1", 1))
        assert [r.state for r in await world.replicas()] == ["ready"]

        agent.tells_all.set()
        await eventually(lambda: runs(world, "run-2", 1))
        assert [(r.id, r.state) for r in await world.replicas()] == [(only.id, "ready")]


async def test_what_drains_is_adopted_and_stopped(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The drain goes on where it was."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1, image()))
        (only,) = await world.until(1, "ready")
        await world.tell("service", "stopped", "ocr", service(1, image(), wanted="stopped", generation=2), 2)
        await world.until(1, "draining")
        await agent.crash(only.id)
        await agent.serve()
        await eventually(lambda: runs(world, "run-2", 1))
        assert not agent.stops
        await world.drained(only.id)
        (stopped,) = await world.until(1, "stopped")
        assert stopped.id == only.id
        assert [s.replica_id for s in agent.stops] == [only.id]


async def test_the_scheduler_was_away_while_the_agent_came_back(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """It finds the new life alone, and what that has adopted."""
    async with one_engine(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1, image()))
        (only,) = await world.until(1, "ready")
        await world.kill()
        await agent.crash(only.id)
        await agent.serve()
        await world.start()
        await eventually(lambda: runs(world, "run-2", 1))
        assert [(r.id, r.state) for r in await world.replicas()] == [(only.id, "ready")]
        assert len(agent.starts) == 1


async def runs(world: Platform, run: str, count: int) -> bool:
    return sum(r.run == run for r in await world.replicas()) == count


def told(world: Platform, replica: str) -> list[ReplicaState]:
    """Every state of a replica that was told, in order."""
    states = [world.state(f) for f in world.told if f.entity == "replica"]
    return [s for s in states if s.id == replica]


# Their images.


async def test_images_of_all_nodes_and_who_has_not_answered(
    short_path: Path, nats_url: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image on two nodes is one; a silent agent and a node without an engine are named."""
    monkeypatch.setattr("easel_scheduler.images.ASK_S", 0.3)
    agents = [engine(short_path, f"n{number}") for number in (1, 2, 3, 4)]
    onnx = agent_pb2.NodeImage(id="sha256:1", tags=["easel/onnx:1"], labels={"easel.runtime.name": "onnx"},
                               size_bytes=7, created_unix_s=1_900_000_000)  # fmt: skip
    plain = agent_pb2.NodeImage(id="sha256:2", tags=["a:1"])
    untagged = agent_pb2.NodeImage(id="sha256:3", tags=["<none>:<none>"], digests=["<none>@<none>"])
    agents[0].images, agents[1].images, agents[2].images = [plain, onnx, untagged], [onnx], None
    agents[3].runtimes = [PROCESS, NO_DOCKER]
    for agent in agents:
        await agent.serve()
    addresses = [agent.address for agent in agents]
    async with platform(short_path, nats_url, postgres_dsn, addresses) as world, world.api() as (_, nodes):
        found = await nodes.ListImages(nodes_pb2.ListImagesRequest(), metadata=AUTH)
        assert [(x.id, [*x.tags], x.runtime, [*x.nodes]) for x in found.images] == [
            ("sha256:1", ["easel/onnx:1"], "onnx", ["n1", "n2"]), ("sha256:2", ["a:1"], "", ["n1"]),
        ]  # fmt: skip
        assert (found.images[0].size_bytes, found.images[0].create_time.seconds) == (7, 1_900_000_000)
        assert [(x.node, x.why) for x in found.silent] == [
            ("n3", "its agent did not answer within 0.3 s"), ("n4", f"no Docker engine: {NO_DOCKER.why_not}"),
        ]  # fmt: skip
        one = await nodes.ListImages(nodes_pb2.ListImagesRequest(node="n1", all=True), metadata=AUTH)
        assert [x.id for x in one.images] == ["sha256:1", "sha256:2", "sha256:3"]
        assert not one.silent
        await agents[1].cut()
        cut = await nodes.ListImages(nodes_pb2.ListImagesRequest(node="n2"), metadata=AUTH)
        assert [(x.node, x.why) for x in cut.silent] == [("n2", "its agent is not connected")]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await nodes.ListImages(nodes_pb2.ListImagesRequest(node="n9"), metadata=AUTH)
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
    for agent in agents:
        await agent.cut()
