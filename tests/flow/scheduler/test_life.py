"""From a service's fact to running replicas and back, on real stores and a fake agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from easel_contracts.facts import ReplicaState
from easel_contracts.spec import Lifecycle
from easel_kit.testing import eventually
from easel_proto.v1 import common_pb2, nodes_pb2, replicas_pb2
from easel_scheduler.decide.world import Replica
from tests.flow.scheduler.fake_agent import FakeAgent
from tests.flow.scheduler.platform import AUTH, Platform, logs_request, platform
from tests.unit.scheduler.build import revision, scale, service


@asynccontextmanager
async def one_agent(path: Path, nats_url: str, dsn: str) -> AsyncIterator[tuple[Platform, FakeAgent]]:
    agent = FakeAgent(f"unix:{path}/fake.sock")
    await agent.serve()
    async with platform(path, nats_url, dsn, [agent.address]) as found:
        yield found, agent
    await agent.cut()


async def test_a_service_gets_its_replicas_and_loses_them(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Created → started → ready with endpoint; scaled in → drained first; stopped → nothing is left."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(2))
        ready = await world.until(2, "ready")
        assert sorted(agent.starts) == sorted(r.id for r in ready)
        assert ready[0].endpoints[0].port == 20001
        assert {"schedule"} <= set(ready[0].phase_s)
        await eventually(lambda: world.verbs(ready[0].id) == ["placed", "ready"])

        await world.route(*(r.id for r in ready))
        await world.tell("scale", "decided", "ocr", scale(1))
        (draining,) = await world.until(1, "draining")
        assert not agent.stops
        await world.drained(draining.id)
        await world.until(1, "stopped")
        assert [(s.replica_id, s.idle, s.sigterm) for s in agent.stops] == [(draining.id, True, False)]
        await eventually(lambda: world.verbs(draining.id) == ["placed", "ready", "draining", "stopped"])

        await world.tell("service", "stopped", "ocr", service(2, wanted="stopped", generation=2), 2)
        (last,) = await world.until(1, "draining")
        await world.drained(last.id)
        await world.until(0, "ready", "draining")


async def test_a_release_spends_nothing_before_the_new_is_routed(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Ready is not enough: the old one drains when route.applied names the new one."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1))
        (old,) = await world.until(1, "ready")
        await world.route(old.id)
        await world.tell("service", "updated", "ocr", service(1, revision(2), generation=2), 2)
        new = next(r for r in await world.until(2, "ready") if r.id != old.id)
        assert not await world.replicas("draining")

        await world.route(old.id, new.id)
        (draining,) = await world.until(1, "draining")
        assert draining.id == old.id
        assert draining.cause == "Replaced"
        await world.drained(old.id)
        await world.until(1, "stopped")
        assert [r.id for r in await world.replicas("ready")] == [new.id]
        assert agent.specs[new.id].revision.number == 2


async def test_sigterm_is_sent_once_traffic_is_off(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """With enable_sigterm the program is asked to finish as soon as no new request reaches it."""
    lifecycle = Lifecycle(enable_sigterm=True, termination_grace_s=20)
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1, revision(1, lifecycle=lifecycle)))
        (only,) = await world.until(1, "ready")
        await world.route(only.id)
        await world.tell("service", "stopped", "ocr", service(1, revision(1, lifecycle=lifecycle), wanted="stopped"))
        await world.until(1, "draining")
        assert not agent.stops
        await world.route(draining=(only.id,))
        await world.until(1, "stopped")
        assert agent.stops[0].sigterm
        assert not agent.stops[0].idle
        assert 10 < agent.stops[0].grace_s <= 20


async def test_the_grace_period_ends_a_drain(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A replica whose requests never end is stopped all the same."""
    rev = revision(1, lifecycle=Lifecycle(termination_grace_s=0.3))
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1, rev))
        await world.until(1, "ready")
        await world.tell("service", "deleted", "ocr", service(1, rev, wanted="deleted"))
        (ended,) = await world.until(1, "stopped")
        assert not agent.stops[0].idle
        assert agent.stops[0].grace_s == 0
        assert ended.cause == "ServiceDeleted"
        assert "its grace period of 0.3 s is over" in ended.message


async def test_no_room_is_explained_and_ends_when_there_is_room(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Pending, with what is short by how much; placed as soon as somebody leaves."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        big = service(1, revision(1, cpu=6), uid="u2", name="big")
        await world.tell("service", "created", "big", big)
        await eventually(lambda: any(f.key == "big" and f.verb == "ready" for f in world.told))
        await world.tell("service", "created", "ocr", service(1, revision(1, cpu=4)))
        (pending,) = await world.until(1, "pending")
        assert pending.cause == "NoCapacity"
        assert "n1: short by 2 cores: 4 asked for, 6 of 8 are reserved" in pending.message
        async with world.api() as (replicas, nodes):
            lines = (await replicas.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=AUTH)).lines
            assert [x.code for x in lines] == ["SpecInstance", "NoCapacity"]
            node = await nodes.Get(nodes_pb2.GetNodeRequest(node="n1"), metadata=AUTH)
            why = (await nodes.Explain(common_pb2.ExplainRequest(name="n1"), metadata=AUTH)).lines
            assert why[0].code == "NodeReady"
            assert any(line.code == "Holds" and line.message.startswith("big: ") for line in why)
            assert (node.state, node.cpu_used, node.replicas) == ("ready", 6, 1)

        await world.tell("service", "stopped", "big", service(1, big.revision, uid="u2", name="big", wanted="stopped"))
        big_one = next(f for f in world.told if f.key == "big" and f.verb == "ready")
        await eventually(lambda: any(f.key == "big" and f.verb == "draining" for f in world.told))
        await world.drained(world.state(big_one).id)
        await world.until(1, "ready")


async def test_a_failed_replica_is_replaced_with_back_off_and_its_last_lines_stay_out_of_facts(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """The cause and the log's end are in the row and the API; facts carry the cause alone."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.outcome = lambda _: {"phase": "failed", "cause": "oom", "message": "used 600 MiB of 512 MiB",
                                   "log_tail": ("secret line",), "exit_code": 137}  # fmt: skip
        await world.tell("service", "created", "ocr", service(1))
        first = (await world.until(1, "failed"))[0]
        assert (first.cause, first.log_tail) == ("OutOfMemory", ("secret line",))
        async with world.api() as (replicas, _):
            found = await replicas.List(replicas_pb2.ListReplicasRequest(service="ocr"), metadata=AUTH)
            assert list(found.replicas[0].last_log_lines) == ["secret line"]
            codes = [
                x.code for x in (await replicas.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=AUTH)).lines
            ]
            assert codes == ["SpecInstance", "OutOfMemory", "BackOff"]
        second = (await world.until(2, "failed"))[1]
        assert (second.created_at - (first.ended_at or first.created_at)).total_seconds() >= 1.0
        assert not any(b"secret line" in bytes(f.data) for f in world.told)


async def test_a_crash_in_place_keeps_the_replica(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The agent starts the process again: same replica, a restart more, unready meanwhile."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(1))
        (only,) = await world.until(1, "ready")
        agent.report(only.id, phase="backoff", cause="exit", message="exited with 1", exit_code=1, restarts=1)
        await world.until(1, "starting")
        agent.report(only.id, phase="running", ready=True, restarts=1)
        (again,) = await world.until(1, "ready")
        assert (again.id, again.restarts) == (only.id, 1)
        agent.report(only.id, phase="running", ready=False, restarts=1)
        await world.until(1, "unready")
        await eventually(lambda: world.verbs(only.id) == ["placed", "ready", "starting", "ready", "unready"])


async def test_logs_of_all_replicas_are_merged(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Each chunk names its replica; a log that cannot be read says so."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await world.tell("service", "created", "ocr", service(2))
        one, two = await world.until(2, "ready")
        agent.logs[one.id] = [b"hello\n", b"world\n"]
        async with world.api() as (replicas, _):
            chunks = [c async for c in replicas.Logs(logs_request(), metadata=AUTH)]
        assert [c.data for c in chunks if c.replica == one.id] == [b"hello\n", b"world\n"]
        assert [c.stream for c in chunks if c.replica == two.id] == ["event"]


async def test_rows_and_facts_agree(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The newest fact of each replica has its row's version, and every version was told once."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        await world.tell("service", "created", "ocr", service(3))
        rows = await world.until(3, "ready")
        for row in rows:
            await eventually(partial(_all_told, world, row))
            versions = [_version(world.state(f), row.id) for f in world.told if f.entity == "replica"]
            assert [v for v in versions if v] == list(range(1, row.row_version + 1))


def _all_told(world: Platform, row: Replica) -> bool:
    return len(world.verbs(row.id)) == row.row_version


def _version(state: ReplicaState, replica: str) -> int | None:
    return state.row_version if state.id == replica else None


async def test_ended_replicas_are_forgotten(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The newest are kept; those that live are never touched."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        agent.outcome = lambda _: {"phase": "failed", "cause": "exit", "message": "exited with 1"}
        await world.tell("service", "created", "ocr", service(3))
        await world.until(3, "failed")
        agent.outcome = lambda _: {"phase": "running", "ready": True}
        await world.until(3, "ready")
        newest = max(await world.replicas("failed"), key=lambda r: r.ended_at or r.created_at)
        gone = await world.store.prune(1, 7)
        assert len(gone) == 2
        assert [r.id for r in await world.replicas("failed")] == [newest.id]
        assert len(await world.replicas("ready")) == 3
        await eventually(lambda: not agent.reports.keys() - set(agent.starts[3:]))
