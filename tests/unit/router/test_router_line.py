"""Requests that wait: the order of release, news, clients that go away, and messages that wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from easel_contracts.metrics import HoldMetrics
from easel_kit.testing import ManualClock, eventually
from easel_router.coldstarts import ColdStarts
from easel_router.decide.holding import MAX_TRIES, Refuse
from easel_router.decide.snapshot import Hold, ServicePlan
from easel_router.hold import Asked, Go, Holds
from easel_router.model import Known
from easel_router.testing import a_plan

HELD = a_plan("ocr", hold=Hold(max_requests=100), keepalive_ms=60_000)
SERVING = a_plan("ocr", 8000, keepalive_ms=60_000)


class _Known:
    """The plan that is known, and nothing else."""

    def __init__(self) -> None:
        self.now: ServicePlan | None = HELD
        self.services = {"ocr": None}

    def plan(self, service: str) -> ServicePlan | None:
        return self.now if service == "ocr" else None


class _NothingLearned:
    def typical(self, service: str, revision: int) -> dict[str, float]:
        return {}


class World:
    """A hold queue, its clock and what it published."""

    def __init__(self) -> None:
        self.known, self.clock = _Known(), ManualClock()
        self.sent: list[HoldMetrics] = []
        self.holds = Holds(cast("Known", self.known), cast("ColdStarts", _NothingLearned()), self.clock, "default",
                           self._publish)  # fmt: skip

    async def _publish(self, service: str, metrics: HoldMetrics) -> None:
        self.sent.append(metrics)

    def asked(self, ago_s: float = 0.0, **more: Any) -> Asked:
        return Asked(service="ocr", arrived_unix_s=self.clock.now().timestamp() - ago_s, **more)

    async def waits(self, count: int) -> None:
        await eventually(lambda: self.holds.held("ocr") == count)


@asynccontextmanager
async def running(made: World) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(made.holds.wake_for_ever()), asyncio.create_task(made.holds.repeat_for_ever())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with running(made):
        yield made


async def test_released_in_the_order_of_arrival(world: World) -> None:
    """Arrival at Envoy counts, not at the router: after a restart questions come again in any order."""
    order: list[float] = []

    async def one(ago_s: float) -> None:
        assert isinstance(await world.holds.ask(world.asked(ago_s)), Go)
        order.append(ago_s)

    waiting = []
    for ago_s in (1.0, 5.0, 3.0, 4.0, 2.0):
        waiting.append(asyncio.create_task(one(ago_s)))
        await world.waits(len(waiting))
    world.known.now = SERVING
    world.holds.opened(SERVING)
    await asyncio.gather(*waiting)

    assert order == [5.0, 4.0, 3.0, 2.0, 1.0]


async def test_the_first_wakes_at_once_and_silence_follows_the_last(world: World) -> None:
    """One message for the first, then one a second while anybody waits, none afterwards."""
    waiting = asyncio.create_task(world.holds.ask(world.asked()))
    await eventually(lambda: [m.held for m in world.sent] == [1])
    world.clock.move(1.0)
    await eventually(lambda: len(world.sent) == 2)
    assert world.sent[1].oldest_s == 1.0
    waiting.cancel()
    await world.waits(0)
    world.clock.move(1.0)
    world.clock.move(1.0)
    await asyncio.sleep(0)
    assert len(world.sent) == 2


async def test_a_client_that_goes_away_leaves_no_gap(world: World) -> None:
    """Its place is free at once."""
    world.known.now = a_plan("ocr", hold=Hold(max_requests=1))
    first = asyncio.create_task(world.holds.ask(world.asked()))
    await world.waits(1)
    full = await world.holds.ask(world.asked())
    assert isinstance(full, Refuse)
    first.cancel()
    await world.waits(0)
    second = asyncio.create_task(world.holds.ask(world.asked()))
    await world.waits(1)
    second.cancel()


async def test_news_is_judged_anew(world: World) -> None:
    """Whoever waits for what turns hopeless is told; others keep their place."""
    waiting = asyncio.create_task(world.holds.ask(world.asked()))
    await world.waits(1)
    world.holds.changed("ocr")
    await world.waits(1)
    assert not waiting.done()
    world.known.now = a_plan("ocr", hold=Hold(max_requests=9, hopeless="it crashes"))
    world.holds.changed("ocr")
    answer = await waiting
    assert isinstance(answer, Refuse)
    assert answer.code == "ServiceFailed"


async def test_a_replica_that_just_died_is_not_believed(world: World) -> None:
    """A retried request waits a moment for the news; then it stands in line like any other, or is sent once more."""
    world.known.now = SERVING
    world.holds.opened(SERVING)
    retried = asyncio.create_task(world.holds.ask(world.asked(retried=True, attempt=2)))
    await asyncio.sleep(0)
    assert not retried.done()
    world.known.now = HELD
    world.holds.shut("ocr")
    await world.waits(1)
    world.known.now = SERVING
    world.holds.opened(SERVING)
    assert isinstance(await retried, Go)

    assert isinstance(await world.holds.ask(world.asked(retried=True, attempt=2)), Go)
    last = await world.holds.ask(world.asked(retried=True, attempt=MAX_TRIES))
    assert isinstance(last, Refuse)
    assert last.code == "ReplicaUnreachable"


async def test_what_is_left_of_the_limit_goes_along(world: World) -> None:
    """Hold and answer share one limit."""
    world.known.now = SERVING
    world.holds.opened(SERVING)
    answer = await world.holds.ask(world.asked(20.0))
    assert isinstance(answer, Go)
    assert answer.left_s == 40.0
    early = await world.holds.ask(world.asked(-5.0))  # Envoy's clock is ahead of ours
    assert isinstance(early, Go)
    assert early.left_s == 60.0


async def test_refused_requests_wake_once_a_second(world: World) -> None:
    """interceptTraffic false under load: not one message per request."""
    world.known.now = a_plan("ocr", hold=Hold(max_requests=9, wakes_only=True))
    for _ in range(50):
        assert isinstance(await world.holds.ask(world.asked()), Refuse)
    await eventually(lambda: len(world.sent) == 1)
    world.clock.move(1.0)
    await world.holds.ask(world.asked())
    await eventually(lambda: len(world.sent) == 2)


async def test_unknown_services_are_refused(world: World) -> None:
    """Nobody waits for what does not exist."""
    answer = await world.holds.ask(Asked(service="nope", arrived_unix_s=0.0))
    assert isinstance(answer, Refuse)
    assert answer.status == 404
