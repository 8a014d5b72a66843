"""The way to zero and back over real NATS and PostgreSQL: metrics and held requests in, `scale.decided` out.

The process's clock is moved by hand: nothing here happens by the look once a second unless the test lets it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import asyncpg

from easel_kit.testing import ManualClock, eventually
from easel_proto.v1 import scaling_pb2
from tests.flow.autoscaler.world import World, bearer, started
from tests.unit.autoscaler.made import from_zero, service

LOOK_S = 4
"""Shorter than the longest silence that a window bridges."""
GRACE_S = 120
TRIES = 100
NEARLY_S = GRACE_S - 4 * LOOK_S
"""Surely not the whole grace: a process that begins may look more often than its clock ticks."""
LEFT_S = 5 * LOOK_S
POLICY = from_zero(high=30, grace_s=GRACE_S)


async def quiet(world: World, clock: ManualClock, seconds: int) -> bool:
    """For so long a replica is ready and nobody asks; says whether a decision came of it, and stops there."""
    told = len(world.told)
    for look in range(seconds // LOOK_S + 1):
        ready = 1 + look % 2  # so that the newest second can be told from the one before

        async def arrived(ready: int = ready) -> bool:
            return f"on {ready} ready" in (await world.explain()).get("Load", "")

        await world.measure(in_flight=0, ready=ready, seconds=1, interval_s=LOOK_S)
        await eventually(arrived)
        before = (await world.explain()).get("IdleWaits", "")

        tries = itertools.count(1)

        async def looked(before: str = before, tries: Iterator[int] = tries) -> bool:
            if next(tries) % TRIES == 0:
                clock.move(1)  # its look went to sleep only after the clock was moved
            seen = (await world.explain()).get("IdleWaits", "")
            return len(world.told) > told or (bool(seen) and seen != before)

        clock.move(LOOK_S)
        await eventually(looked)
        if len(world.told) > told:
            return True
    return False


async def at_zero(world: World) -> None:
    """A service that was made with no replica."""
    await world.tell(service(POLICY, instance=0))
    await eventually(lambda: world.wanted() == 0)


async def test_idle_to_zero_and_woken_again(environment: dict[str, str]) -> None:
    """After the grace none is wanted, which is shown as in order; the first request brings one, told once."""
    clock = ManualClock()
    async with started(environment, clock) as world:
        await world.tell(service(POLICY))
        await eventually(lambda: world.wanted() == 1)

        assert not await quiet(world, clock, NEARLY_S)
        assert await quiet(world, clock, LEFT_S)
        assert [(s.wanted, s.reason) for s in world.told[1:]] == [(0, "ScaledToZero")]

        clock.move(60.0)  # no replica, no metrics
        lines = await world.explain()
        assert "the first request starts 1" in lines["AtZero"]
        assert not {"NoMetrics", "LoadUnknown", "NoReadyReplica"} & set(lines)
        status = await world.stub.Get(scaling_pb2.GetScalingRequest(name="ocr"), metadata=bearer())
        assert (status.enabled, status.min, status.wanted, status.last.reason) == (True, 0, 0, "ScaledToZero")
        assert not status.targets[0].has_current

        await world.hold(1)
        await eventually(lambda: world.wanted() == 1)
        assert world.told[-1].reason == "Activated"
        assert world.told[-1].message == "1 request waits for 0.02 s, and no replica is wanted"


async def test_a_message_told_again_decides_nothing_again(environment: dict[str, str]) -> None:
    """Once a second the same is said while the replica starts; a crowd brings more by the ordinary rules."""
    clock = ManualClock()
    async with started(environment, clock) as world:
        await at_zero(world)
        for oldest_s in (0.1, 1.1, 2.1):
            await world.hold(2, oldest_s)

            async def heard(oldest_s: float = oldest_s) -> bool:
                return f"the first for {oldest_s:g} s" in (await world.explain()).get("NoReadyReplica", "")

            await eventually(heard)
        await world.hold(41, 3.1)

        async def looked() -> bool:
            clock.move(1.0)
            await world.hold(41, 4.1)
            return world.wanted() == 21

        await eventually(looked)
        assert [(s.number, s.before, s.wanted, s.reason) for s in world.told] == [
            (1, 0, 0, "Initial"), (2, 0, 1, "Activated"), (3, 1, 21, "ScaleOut"),
        ]  # fmt: skip
        assert "41 requests wait" in world.told[-1].message
        assert "41 / 2 asks for 21" in world.told[-1].message


async def test_no_read_stands_between_the_message_and_the_decision(environment: dict[str, str]) -> None:
    """What is in memory is enough: it works while nobody can read what the services are."""
    async with started(environment, ManualClock()) as world:
        await at_zero(world)
        locker = await asyncpg.connect(environment["EASEL_DB_DSN"])
        try:
            async with locker.transaction():
                await locker.execute("LOCK TABLE autoscaler.projection IN ACCESS EXCLUSIVE MODE")
                await world.hold(1)
                await eventually(lambda: world.wanted() == 1)
        finally:
            await locker.close()


async def test_memory_that_is_behind_is_found_out(environment: dict[str, str]) -> None:
    """Another copy decided meanwhile: the write's guard refuses, what is stored is read, and it is decided again."""
    async with started(environment, ManualClock()) as world:
        await at_zero(world)
        other = await asyncpg.connect(environment["EASEL_DB_DSN"])
        await other.execute("UPDATE autoscaler.scale SET number = 7, row_version = nextval('autoscaler.scale_version')")
        await other.close()

        await world.hold(1)

        await eventually(lambda: world.wanted() == 1)
        assert world.told[-1].number == 8


async def test_a_message_before_anything_is_known_of_the_service(environment: dict[str, str]) -> None:
    """Its first decision counts who waits."""
    async with started(environment, ManualClock()) as world:
        await world.hold(2)
        await world.tell(service(POLICY, instance=0))

        await eventually(lambda: world.wanted() == 1)


async def test_a_restart_while_requests_are_held(environment: dict[str, str]) -> None:
    """What was said while no autoscaler ran is said again, and that is enough."""
    async with started(environment, ManualClock()) as world:
        await at_zero(world)

    async with started(environment, ManualClock()) as world:

        async def told_again() -> bool:
            await world.hold(2, 3.0)
            return world.wanted() == 1

        await eventually(told_again)
        assert [(s.number, s.reason) for s in world.told] == [(2, "Activated")]


async def test_a_restart_begins_the_grace_anew(environment: dict[str, str]) -> None:
    """The new process has not seen that nobody asked."""
    clock = ManualClock()
    async with started(environment, clock) as world:
        await world.tell(service(POLICY))
        await eventually(lambda: world.wanted() == 1)
        assert not await quiet(world, clock, NEARLY_S)

    clock = ManualClock()
    async with started(environment, clock) as world:
        await eventually(world.knows)
        assert not await quiet(world, clock, NEARLY_S)
        assert await quiet(world, clock, LEFT_S)
        assert world.wanted() == 0


async def test_lost_metrics_begin_the_grace_anew(environment: dict[str, str]) -> None:
    """Unknown is not zero: the monitor was away, and who asked meanwhile is not known."""
    clock = ManualClock()
    async with started(environment, clock) as world:
        await world.tell(service(POLICY))
        await eventually(lambda: world.wanted() == 1)
        assert not await quiet(world, clock, NEARLY_S)

        clock.move(2 * LOOK_S)
        lines = await world.explain()
        assert {"LoadUnknown", "NoMetrics"} <= set(lines)
        assert not await quiet(world, clock, NEARLY_S)
        assert world.wanted() == 1
