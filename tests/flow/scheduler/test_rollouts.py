"""Rolling updates by share, taken back half way, with the scheduler ended in the middle; who goes when fewer are
wanted; whether a revision would find room. On real stores and a fake agent."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import msgspec
import pytest

from easel_kit.testing import eventually
from easel_proto.internal.v1 import scheduler_pb2, scheduler_pb2_grpc
from easel_proto.v1 import common_pb2
from easel_scheduler.decide.world import Replica
from tests.flow.scheduler.platform import AUTH, Platform
from tests.flow.scheduler.test_life import one_agent
from tests.unit.scheduler.build import revision, rolling, scale, service


async def serving(world: Platform, count: int) -> list[Replica]:
    await world.tell("service", "created", "ocr", service(count))
    rows = await world.until(count, "ready")
    await world.route(*(r.id for r in rows))
    return rows


def of(rows: list[Replica], number: int) -> list[str]:
    return [r.id for r in rows if r.spec.number == number]


async def drained_one(world: Platform) -> Replica:
    (leaving,) = await world.until(1, "draining")
    await world.drained(leaving.id)
    await world.until(0, "draining")
    return leaving


async def crashed(world: Platform, crash: bool) -> None:
    """The scheduler ends and is there again."""
    if crash:
        await world.kill()
        await world.start()


@pytest.mark.parametrize("crash", [False, True])
async def test_a_share_at_a_time(short_path: Path, nats_url: str, postgres_dsn: str, crash: bool) -> None:
    """Half of two: one beside them, one for one when it is routed; then the rest. A crash changes nothing."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await serving(world, 2)
        await world.tell("service", "updated", "ocr", rolling(2, share=50), 2)
        rows = await world.until(3, "ready")
        assert (len(of(rows, 1)), len(of(rows, 2))) == (2, 1)
        await crashed(world, crash)
        await world.route(*(r.id for r in rows))
        assert (await drained_one(world)).spec.number == 1
        await crashed(world, crash)
        rows = await world.until(2, "ready")
        assert (len(of(rows, 1)), len(of(rows, 2))) == (1, 1)
        async with world.api() as (replicas, _):
            lines = (await replicas.Explain(common_pb2.ExplainRequest(name="ocr"), metadata=AUTH)).lines
        assert "1 of the 2 wanted may be of it now" in next(x.message for x in lines if x.code == "Rollout")

        await world.tell("service", "rollout_changed", "ocr", rolling(2, share=100), 3)
        rows = await world.until(3, "ready")
        await crashed(world, crash)
        await world.route(*(r.id for r in rows))
        assert (await drained_one(world)).spec.number == 1
        rows = await world.until(2, "ready")
        assert of(rows, 1) == []
        assert len(agent.starts) == len(set(agent.starts)) == 4


@pytest.mark.parametrize("crash", [False, True])
async def test_taken_back_half_way(short_path: Path, nats_url: str, postgres_dsn: str, crash: bool) -> None:
    """What serves of the given-up revision is replaced by the old one; what does not serve ends at once."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        await serving(world, 2)
        await world.tell("service", "updated", "ocr", rolling(2, share=50), 2)
        rows = await world.until(3, "ready")
        await world.route(*(r.id for r in rows))
        await drained_one(world)
        agent.outcome = lambda spec: {"phase": "running", "ready": spec.revision.number == 1}
        await world.tell("service", "rollout_changed", "ocr", rolling(2, share=100), 3)
        await world.until(1, "starting")
        await crashed(world, crash)
        await world.tell("service", "updated", "ocr", service(2, generation=4), 4)
        rows = await world.until(3, "ready")
        assert (len(of(rows, 1)), len(of(rows, 2))) == (2, 1)
        ended = await eventually(lambda: _ended(world, "Superseded"))
        assert ended.spec.number == 2
        await crashed(world, crash)
        await world.route(*(r.id for r in rows))
        assert (await drained_one(world)).spec.number == 2
        assert len(of(await world.until(2, "ready"), 1)) == 2


async def _ended(world: Platform, cause: str) -> Replica | None:
    return next((r for r in await world.replicas("stopped") if r.cause == cause), None)


async def test_a_paused_rollout_makes_only_the_old(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """A stable replica that is lost comes again; of the new revision none."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        old = await serving(world, 2)
        agent.outcome = lambda spec: {"phase": "running", "ready": spec.revision.number == 1}
        await world.tell("service", "updated", "ocr", rolling(2), 2)
        await world.until(1, "starting")
        await world.tell("service", "rollout_changed", "ocr", rolling(2, paused=True), 3)
        agent.report(old[0].id, phase="failed", cause="oom", message="used 200 MiB of 100 MiB")
        await world.until(1, "failed")
        rows = await world.until(2, "ready")
        assert old[0].id not in {r.id for r in rows}
        assert len(of(rows, 1)) == 2
        assert sum(spec.revision.number == 2 for spec in agent.specs.values()) == 1


async def test_what_the_router_told_of_another_time_ends_no_drain(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Only the number of this drain counts."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, agent):
        (one,) = await serving(world, 1)
        await world.drained(one.id, one.drain_number)
        await world.tell("service", "stopped", "ocr", service(1, wanted="stopped", generation=2), 2)
        (leaving,) = await world.until(1, "draining")
        assert leaving.drain_number == one.drain_number + 1
        await eventually(lambda: world.verbs(one.id)[-1] == "draining")
        told = [world.state(f) for f in world.told if f.entity == "replica" and f.verb == "draining"]
        assert [t.drain_number for t in told] == [leaving.drain_number]
        assert not agent.stops
        await world.drained(one.id)
        await world.until(1, "stopped")
        assert agent.stops[0].idle


async def test_the_replica_with_the_fewest_requests_goes(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """The router is asked once, for the one decision that needs it; the answer is in the reason."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        rows = await serving(world, 3)
        counts = {rows[0].id: 4, rows[1].id: 1, rows[2].id: 7}
        async with world.router(counts) as asked:
            await world.tell("scale", "decided", "ocr", scale(2))
            (leaving,) = await world.until(1, "draining")
        assert leaving.id == rows[1].id
        assert "of 3 ready replicas this one had the fewest requests in flight: 1" in leaving.message
        assert asked == ["ocr"]


async def test_without_the_router_the_newest_goes_and_the_reason_says_why(
    short_path: Path, nats_url: str, postgres_dsn: str
) -> None:
    """Not known is not zero."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        rows = await serving(world, 2)
        await world.tell("scale", "decided", "ocr", scale(1))
        (leaving,) = await world.until(1, "draining")
        assert leaving.id == rows[1].id
        assert "how many requests each had in flight is not known" in leaving.message


async def test_control_asks_whether_replicas_would_fit(short_path: Path, nats_url: str, postgres_dsn: str) -> None:
    """Beside all that lives and stays: what drains makes room by itself. Nobody else may ask."""
    async with one_agent(short_path, nats_url, postgres_dsn) as (world, _):
        await serving(world, 2)
        big = msgspec.msgpack.encode(revision(2, cpu=3.5))
        async with world.internal("control") as opened:
            stub: scheduler_pb2_grpc.PlacementAsyncStub = scheduler_pb2_grpc.PlacementStub(opened)
            one = await stub.Fits(scheduler_pb2.FitsRequest(service="ocr", revision_msgpack=big, replicas=1))
            assert one.fits
            two = await stub.Fits(scheduler_pb2.FitsRequest(service="ocr", revision_msgpack=big, replicas=2))
            assert (two.fits, two.reason) == (False, "NoCapacity")
            assert two.message.startswith("1 of 2 replicas would find room")
            assert "n1: short by 1 cores" in two.message
            await world.tell("scale", "decided", "ocr", scale(1))
            await world.until(1, "draining")
            assert (await stub.Fits(scheduler_pb2.FitsRequest(service="ocr", revision_msgpack=big, replicas=2))).fits
        async with world.internal("router") as opened:
            stub = scheduler_pb2_grpc.PlacementStub(opened)
            with pytest.raises(grpc.aio.AioRpcError, match="only control"):
                await stub.Fits(scheduler_pb2.FitsRequest(service="ocr", revision_msgpack=big, replicas=1))
