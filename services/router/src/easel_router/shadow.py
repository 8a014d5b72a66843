"""The shadow collector: copies of requests are replayed to both sides, and the answers compared.

Nothing of this is on a caller's path: Envoy has forgotten a copy as soon as it has sent it. Everything is bounded: the
samples of a second, the copies that wait, the bytes they hold, the requests at a time. What is over a bound is counted
as not compared, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from random import Random

from msgspec import Struct

from easel_kit.cancelling import ended
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_router.comparisons import Comparisons
from easel_router.decide.arms import Arm
from easel_router.decide.compare import Answer, Compared, compare, request_line, weight
from easel_router.decide.report import Sample
from easel_router.decide.sides import Sides, answers
from easel_router.model import Known
from easel_router.replay import Budget, NotReplayed, Replayer, Request

AT_A_TIME = 8
"""Copies of one service that are being replayed at a time."""
MOST_WAITING = 32
"""Copies of one service that are replayed or wait for that."""
MOST_BYTES = 128 << 20
"""Bodies of all copies and answers together."""
_BIG = 16 << 10
"""Bytes of answers from which on they are compared beside the event loop, which serves the Envoys too."""

log = get_logger("shadow")


class Bucket:
    """At most `rate` a second over time, and as many at once (at least one)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: float | None = None
        self._at = clock.monotonic()

    def take(self, rate: float) -> bool:
        """Whether one more is within the rate."""
        now, most = self._clock.monotonic(), max(rate, 1.0)
        left = most if self._left is None else min(most, self._left + (now - self._at) * rate)
        self._at = now
        self._left = left - 1 if left >= 1 else left
        return left >= 1


class Lane:
    """The copies of one service."""

    def __init__(self, clock: Clock) -> None:
        self.bucket = Bucket(clock)
        self.turn = asyncio.Semaphore(AT_A_TIME)
        self.waiting = 0


class Admitted(Struct, frozen=True, kw_only=True):
    """A copy whose body may be read. It takes its place, until it is replayed or refused."""

    service: str
    sides: Sides
    lane: Lane
    reserved: int
    """Bytes that its body may have."""

    @property
    def body_bytes(self) -> int:
        """The longest body that is compared."""
        return self.sides.how.body_kib << 10


class Collector:
    """Decides what becomes of a copy, replays and compares it."""

    def __init__(
        self, known: Known, comparisons: Comparisons, replayer: Replayer, budget: Budget, clock: Clock, chance: Random
    ) -> None:
        self._known, self._comparisons, self._replayer, self._budget = known, comparisons, replayer, budget
        self._clock, self._chance = clock, chance
        self._lanes: dict[str, Lane] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compare")

    def admit(self, service: str, headers: Mapping[str, str], length: int | None) -> Admitted | None:
        """Whether a copy is worth its body; None: it is counted, or nobody asks for it any more.

        `headers` by name in lower case; `length`: of the body, where it is told.
        """
        between = self._comparisons.sides(service)
        if between is None:
            self._lanes.pop(service, None)
            return None
        lane = self._lanes.setdefault(service, Lane(self._clock))
        most = between.how.body_kib << 10
        admitted = Admitted(service=service, sides=between, lane=lane, reserved=most if length is None else length)
        why = self._why_not(admitted, headers)
        if why:
            self._comparisons.skip(service, between, why)
            return None
        lane.waiting += 1
        return admitted

    def refuse(self, admitted: Admitted, why: str) -> None:
        """A copy that was let in, but cannot be compared after all."""
        self._leave(admitted)
        self._comparisons.skip(admitted.service, admitted.sides, why)

    def take(self, admitted: Admitted, request: Request) -> None:
        """Replays a copy when its turn comes; returns at once."""
        task = asyncio.create_task(self._in_turn(admitted, request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self._leave(admitted))

    def waiting(self) -> float:
        """Copies that are replayed or wait for that."""
        return sum(lane.waiting for lane in self._lanes.values())

    async def close(self) -> None:
        """Drops what is under way."""
        for task in list(self._running):
            await ended(task)
        self._aside.shutdown(wait=False, cancel_futures=True)

    def _leave(self, admitted: Admitted) -> None:
        admitted.lane.waiting -= 1
        self._budget.give_back(admitted.reserved)

    def _why_not(self, admitted: Admitted, headers: Mapping[str, str]) -> str:
        if "upgrade" in headers:
            return "WebSocket"
        if headers.get("content-type", "").startswith("application/grpc"):
            return "Grpc"
        if admitted.reserved > admitted.body_bytes:
            return "TooLarge"
        between = admitted.sides
        if not all(answers(side, self._known.replicas(side.service)) for side in (between.stable, between.candidate)):
            return "NoReplica"
        if admitted.lane.waiting >= MOST_WAITING:
            return "Busy"
        if not admitted.lane.bucket.take(between.how.samples_per_s):
            return "TooMany"
        return "" if self._budget.take(admitted.reserved) else "Busy"

    async def _in_turn(self, admitted: Admitted, request: Request) -> None:
        service, between = admitted.service, admitted.sides
        try:
            async with admitted.lane.turn:
                self._comparisons.add(service, between, await self._sample(between, request))
        except NotReplayed as error:
            self._comparisons.skip(service, between, error.why)
        except Exception:
            log.exception("copy not compared", service=service)
            self._comparisons.skip(service, between, "Error")

    async def _sample(self, between: Sides, request: Request) -> Sample:
        """All at the same time, begun in an order of chance: neither side is always the first, nor alone."""
        twice = self._chance.random() * 100 < between.how.twice_percent
        arms: tuple[Arm, ...] = ("stable", "candidate", "stable") if twice else ("stable", "candidate")
        order = list(range(len(arms)))
        self._chance.shuffle(order)
        service, how = between.stable.service, between.how
        tasks = {at: asyncio.create_task(self._replayer.replay(service, arms[at], request, how)) for at in order}
        try:
            stable, candidate, *again = await asyncio.gather(*(tasks[at] for at in range(len(arms))))
            made = await self._compared(stable.answer, candidate.answer, again[0].answer if again else None, between)
        finally:
            for task in tasks.values():
                await ended(task)
                if not task.cancelled() and task.exception() is None:
                    self._budget.give_back(len(task.result().answer.body))
        return Sample(
            request=request_line(request.method, request.path, request.body), at_unix_s=self._clock.now().timestamp(),
            candidate=made[0], itself=made[1], stable_ms=stable.took_ms, candidate_ms=candidate.took_ms,
        )  # fmt: skip

    async def _compared(
        self, stable: Answer, candidate: Answer, again: Answer | None, between: Sides
    ) -> tuple[Compared, Compared | None]:
        def work() -> tuple[Compared, Compared | None]:
            itself = compare(stable, again, between.how) if again is not None else None
            return compare(stable, candidate, between.how), itself

        if weight(stable, candidate, *([again] if again is not None else [])) < _BIG:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)
