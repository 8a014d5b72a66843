"""Replicas.Restart and Isolate: replaced, started anew in place, isolated; remembered, audited, and no crash of the
scheduler loses any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from easel_contracts.spec import Lifecycle
from easel_kit.testing import eventually
from easel_proto.internal.v1 import audit_pb2, audit_pb2_grpc
from easel_proto.v1 import replicas_pb2
from easel_scheduler.decide.world import Replica
from tests.flow.scheduler.platform import AUTH, Platform
from tests.flow.scheduler.test_life import one_agent
from tests.flow.scheduler.test_rollouts import crashed, drained_one, serving
from tests.unit.scheduler.build import revision, service


async def restart(world: Platform, *names: str, **more: Any) -> replicas_pb2.RestartReplicasResponse:
    request = replicas_pb2.RestartReplicasRequest(service="ocr", replicas=names, **more)
    async with world.api() as (replicas, _):
        return await replicas.Restart(request, metadata=AUTH)


async def isolate(world: Platform, name: str, isolated: bool, **more: Any) -> replicas_pb2.Replica:
    request = replicas_pb2.IsolateReplicaRequest(service="ocr", replica=name, isolated=isolated, **more)
    async with world.api() as (replicas, _):
        return await replicas.Isolate(request, metadata=AUTH)


async def row(world: Platform, name: str) -> Replica:
    found = await world.store.replica(name)
    assert found is not None
    return found


async def out_of_traffic(world: Platform, *names: str) -> Replica:
    """The one of these that is being restarted."""

    async def look() -> Replica | None:
        return next((r for r in await world.replicas() if r.id in names and r.out_of_traffic == "restarting"), None)

    found: Replica = await eventually(look)
    return found


@pytest.mark.parametrize("crash", [False, True])
async def test_dw_replaces_when_the_successor_serves(
    short_path: Path, nats_url: str, postgres_dsn: str, crash: bool
) -> None:
    """The named one serves until another is ready and routed."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        one, two = await serving(world, 2)
        answer = await restart(world, one.id)
        assert [(r.name, r.reason) for r in answer.replicas] == [(one.id, "AwaitsSuccessor")]
        await crashed(world, crash)
        rows = await world.until(3, "ready")
        await crashed(world, crash)
        assert not await world.replicas("draining")
        await world.route(*(r.id for r in rows))
        assert (await drained_one(world)).id == one.id
        assert two.id in {r.id for r in await world.until(2, "ready")}


async def test_dw_now_waits_for_nobody(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Drained at once; its successor comes up meanwhile."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        (one,) = await serving(world, 1)
        await restart(world, one.id, now=True)
        (leaving,) = await world.until(1, "draining")
        assert (leaving.id, leaving.cause) == (one.id, "RestartAsked")
        await world.until(1, "ready")


async def test_dw_without_room_waits_and_says_so(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The successor names what is short; `now` ends the wait."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        await world.tell("service", "created", "ocr", service(1, revision(1, cpu=6)))
        (one,) = await world.until(1, "ready")
        await world.route(one.id)
        await restart(world, one.id)
        (waiting,) = await world.until(1, "pending")
        assert "short by 4 cores" in waiting.message
        assert (await row(world, one.id)).state == "ready"
        await restart(world, one.id, now=True)
        assert (await drained_one(world)).id == one.id
        (ready,) = await world.until(1, "ready")
        assert ready.id == waiting.id


@pytest.mark.parametrize("crash", [False, True])
async def test_soft_restarts_take_turns(short_path: Path, nats_url: str, postgres_dsn: str, crash: bool) -> None:
    """Out of traffic, no request left, a new process, back in traffic: then the next. No replica is made or ended."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        rows = await serving(world, 2)
        names = [r.id for r in rows]
        agent.restarts_at_once = False
        await restart(world, *names, soft=True)
        first = await out_of_traffic(world, *names)
        (second,) = [name for name in names if name != first.id]
        await crashed(world, crash)
        await world.route(second, draining=(first.id,))
        assert not agent.restarts
        await world.drained(first.id)
        await eventually(
            lambda: [(x.replica_id, x.number, x.grace_s) for x in agent.restarts][:1] == [(first.id, 1, 0)]
        )
        await crashed(world, crash)
        agent.restarted(first.id, 1)
        await eventually(lambda: _back(world, first.id))
        assert (await row(world, second)).out_of_traffic == ""
        await world.route(second, first.id)

        after = await out_of_traffic(world, second)
        await world.drained(after.id)
        await eventually(lambda: agent.restarts[-1].replica_id == second)
        agent.restarted(second, 1)
        await eventually(lambda: _back(world, second))
        assert [r.id for r in await world.replicas()] == names
        assert len(agent.starts) == 2


async def _back(world: Platform, name: str) -> bool:
    found = await row(world, name)
    return (found.state, found.out_of_traffic, found.restart_done) == ("ready", "", 1)


async def test_a_soft_restart_waits_no_longer_than_the_grace_period(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """A request that never ends: its process is started anew all the same, and the row says so."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        rev = revision(1, lifecycle=Lifecycle(termination_grace_s=0.3))
        await world.tell("service", "created", "ocr", service(1, rev))
        (one,) = await world.until(1, "ready")
        await world.route(one.id)
        await restart(world, one.id, soft=True)
        await eventually(lambda: _back(world, one.id))
        assert [(x.number, x.grace_s) for x in agent.restarts] == [(1, 0)]
        told = [f.cause for f in world.told if f.entity == "replica" and f.cause.reason == "GraceOver"]
        assert len(told) == 1
        assert "grace period of 0.3 s is over" in told[0].message


@pytest.mark.parametrize("crash", [False, True])
async def test_an_isolated_replica_lives_without_traffic(
    short_path: Path, nats_url: str, postgres_dsn: str, crash: bool
) -> None:
    """A successor takes its place; let back it is one too many; it ends with the service."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        one, two = await serving(world, 2)
        shown = await isolate(world, one.id, True)
        assert (shown.isolated, shown.reason, shown.status) == (True, "Isolated", "ready")
        await crashed(world, crash)
        rows = await world.until(3, "ready")
        (third,) = [r for r in rows if r.id not in (one.id, two.id)]
        await world.route(two.id, third.id)
        await world.drained(one.id)
        await eventually(lambda: any(world.state(f).out_of_traffic == "isolated" for f in world.told
                                     if f.entity == "replica" and world.state(f).id == one.id))  # fmt: skip
        assert not agent.stops
        agent.report(one.id, phase="running", ready=False, cause="probe")
        await world.until(1, "unready")
        agent.report(one.id, phase="running", ready=True)
        await world.until(3, "ready")

        assert not (await isolate(world, one.id, False)).isolated
        assert (await drained_one(world)).id == one.id
        await isolate(world, two.id, True)
        await world.until(3, "ready")
        await crashed(world, crash)
        await world.tell("service", "deleted", "ocr", service(2, wanted="deleted", generation=2), 2)
        for r in await world.until(3, "draining"):
            await world.drained(r.id)
        await world.until(0, "ready", "draining")


async def test_the_same_request_is_answered_alike_and_written_down_once(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Idempotency keys, and the audit trail that control shows."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        one, two = await serving(world, 2)
        first = await isolate(world, one.id, True, idempotency_key="k1")
        await isolate(world, one.id, False)
        assert await isolate(world, one.id, True, idempotency_key="k1") == first
        assert (await row(world, one.id)).out_of_traffic == ""
        with pytest.raises(grpc.aio.AioRpcError, match="used for another request"):
            await isolate(world, two.id, True, idempotency_key="k1")
        async with world.internal("control") as opened:
            stub: audit_pb2_grpc.AuditTrailAsyncStub = audit_pb2_grpc.AuditTrailStub(opened)
            records = (await stub.List(audit_pb2.ListTrailRequest(workspace="default", size=10))).records
        assert [(r.owner, r.actor, r.action, r.target) for r in records] == [
            ("scheduler", "test", "Replicas.Isolate", f"replica/{one.id}")
        ] * 2
        assert '"out_of_traffic": "isolated"' in records[1].after_json


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"replicas": ["ocr-1-zzzzz"]}, "no replica ocr-1-zzzzz"),
        ({"replicas": []}, "`replicas` is missing"),
        ({"replicas": ["x"], "soft": True, "now": True}, "exclude each other"),
        ({"replicas": ["x"], "idempotency_key": "k" * 201}, "at most 200"),
    ],
)
async def test_what_is_refused_changes_nothing(
    short_path: Path, nats_url: str, postgres_dsn: str, given: dict[str, Any], words: str
) -> None:
    """With the reason; all named replicas or none."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        (one,) = await serving(world, 1)
        names = [one.id, *given.pop("replicas")] if "zzzzz" in words else given.pop("replicas")
        with pytest.raises(grpc.aio.AioRpcError, match=words):
            await restart(world, *names, **given)
        assert (await row(world, one.id)).replacing == ""
