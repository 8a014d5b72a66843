"""Requests that wait for a replica: one line per service, in the order of arrival.

Envoy keeps the requests; here wait only its questions whether each may go on. A line opens when every live Envoy has
acknowledged endpoints that take traffic, and shuts when the router knows that there are none. The first in a line wakes
the service by a message, which is repeated once a second while anybody waits: a lost one costs a second.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterator
from itertools import count

from msgspec import Struct

from easel_contracts.metrics import HoldMetrics
from easel_kit.bus import BusError
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_router.coldstarts import ColdStarts
from easel_router.decide.coldstart import expected_s
from easel_router.decide.holding import MAX_TRIES, Refuse, Wait, admit, expired, limit_s, unreachable
from easel_router.decide.snapshot import ServicePlan
from easel_router.model import Known

REPEAT_S = 1.0
AGAIN_AFTER_S = 0.1
"""A request that found no living replica although there should be one: the news of its death is on the way."""

log = get_logger("hold")

Publish = Callable[[str, HoldMetrics], Awaitable[None]]


class Asked(Struct, frozen=True, kw_only=True):
    """Envoy's question about one request."""

    service: str
    request_id: str = ""
    arrived_unix_s: float
    """At Envoy; survives our restarts."""
    timeout_header: str = ""
    grpc_timeout: str = ""
    retried: bool = False
    """It comes from the hold listener: a replica was tried before."""
    attempt: int = 1
    """Which of its tries this is."""


class Go(Struct, frozen=True, kw_only=True):
    """It may go on."""

    left_s: float
    """Of its time limit."""
    wait: Wait | None = None
    """How it waited; None: it did not."""


class _Waiter(Struct, frozen=True, eq=False):
    arrived_unix_s: float
    number: int
    released: asyncio.Future[None]


class Line:
    """Those who wait for one service."""

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.woken_s = float("-inf")
        """Monotonic time of the last message for a request that did not wait."""
        self.changed = asyncio.Event()

    def add(self, waiter: _Waiter) -> int:
        """Puts it where its arrival belongs; its position from 1."""
        bisect.insort(self.waiters, waiter, key=lambda w: (w.arrived_unix_s, w.number))
        return self.waiters.index(waiter) + 1

    def news(self) -> None:
        """Whoever waits looks again, in the order of arrival."""
        for waiter in self.waiters:
            if not waiter.released.done():
                waiter.released.set_result(None)
        self.changed.set()
        self.changed = asyncio.Event()


class Holds:
    """All lines of this copy of the router."""

    def __init__(self, known: Known, cold_starts: ColdStarts, clock: Clock, workspace: str, publish: Publish) -> None:
        self._known, self._cold_starts, self._clock = known, cold_starts, clock
        self._workspace, self._publish = workspace, publish
        self._open: dict[str, ServicePlan] = {}
        self._lines: dict[str, Line] = {}
        self._to_wake: asyncio.Queue[str] = asyncio.Queue()
        self._numbers: Iterator[int] = count()

    def opened(self, plan: ServicePlan) -> None:
        """Every live Envoy has endpoints that take traffic: those who wait go on, in order."""
        self._open[plan.service] = plan
        self._tell(plan.service)

    def shut(self, service: str) -> None:
        """No replica takes traffic any more, or none is known to."""
        if self._open.pop(service, None) is not None:
            self._tell(service)

    def changed(self, service: str) -> None:
        """The plan changed: whether waiting makes sense is judged anew."""
        self._tell(service)

    def held(self, service: str) -> int:
        """Requests that wait now."""
        line = self._lines.get(service)
        return len(line.waiters) if line else 0

    def total(self) -> int:
        """Requests that wait now, over all services."""
        return sum(len(line.waiters) for line in self._lines.values())

    def expected_s(self, plan: ServicePlan) -> float | None:
        """How long a request that comes now would wait."""
        return expected_s(self._cold_starts.typical(plan.service, plan.revision), self._oldest_s(plan.service))

    async def ask(self, asked: Asked) -> Go | Refuse:
        """The answer to one question, when it is time for it. Cancelled when the client goes away."""
        line = self._lines.setdefault(asked.service, Line())
        waited: Wait | None = None
        tried_again = False
        while True:
            plan = self._open.get(asked.service)
            if plan is not None and asked.retried and asked.attempt >= MAX_TRIES:
                return unreachable(plan)
            if plan is not None and asked.retried and not tried_again:
                tried_again = True
                await _within(line.changed, AGAIN_AFTER_S)
                continue
            if plan is not None:
                return Go(left_s=max(self._limit_s(plan, asked) - self._waited_s(asked), 0.001), wait=waited)
            verdict = await self._stand(asked, line, waited)
            if isinstance(verdict, Refuse):
                return verdict
            waited = waited or verdict

    async def wake_for_ever(self) -> None:
        """Publishes as soon as somebody begins to wait."""
        while True:
            await self._send(await self._to_wake.get(), least=1)

    async def repeat_for_ever(self) -> None:
        """Publishes once a second while anybody waits; forgets lines in which nobody does."""
        while True:
            await self._clock.sleep(REPEAT_S)
            for service in list(self._lines):
                if self.held(service):
                    await self._send(service)
                elif service not in self._known.services:
                    del self._lines[service]

    async def _stand(self, asked: Asked, line: Line, before: Wait | None) -> Wait | Refuse:
        """Waits for news of the service."""
        plan = self._known.plan(asked.service)
        if plan is None:
            return Refuse(status=404, code="NotFound", message=f"no such service: {asked.service}", retry_after_s=1,
                          hint="`easel ls` lists the services")  # fmt: skip
        limit = self._limit_s(plan, asked)
        if plan.hold is None:  # a replica is ready, but no Envoy has been told yet
            verdict: Wait | Refuse = Wait(left_s=limit - self._waited_s(asked), position=0, expected_s=0.0)
        else:
            verdict = admit(plan, held=len(line.waiters), waited_s=self._waited_s(asked), limit=limit,
                            expected_s=self.expected_s(plan))  # fmt: skip
            if not line.waiters and not plan.hold.hopeless:
                self._wake(asked.service, line, refused=isinstance(verdict, Refuse))
        if isinstance(verdict, Refuse):
            return verdict
        waiter = _Waiter(asked.arrived_unix_s, next(self._numbers), asyncio.get_running_loop().create_future())
        position = line.add(waiter)
        waited = before or Wait(left_s=verdict.left_s, position=position, expected_s=verdict.expected_s)
        try:
            async with asyncio.timeout(verdict.left_s):
                await waiter.released
        except TimeoutError:
            return expired(plan, limit=limit, position=waited.position, expected_s=self.expected_s(plan))
        finally:
            line.waiters.remove(waiter)
        return waited

    def _wake(self, service: str, line: Line, *, refused: bool) -> None:
        """At once; for requests that are refused, one after the other, as often as it would be repeated."""
        now_s = self._clock.monotonic()
        if refused and now_s - line.woken_s < REPEAT_S:
            return
        if refused:
            line.woken_s = now_s
        self._to_wake.put_nowait(service)

    def _limit_s(self, plan: ServicePlan, asked: Asked) -> float:
        return limit_s(plan, asked.timeout_header, asked.grpc_timeout)

    def _waited_s(self, asked: Asked) -> float:
        """Clocks of two machines may differ: nobody has waited for less than nothing."""
        return max(self._clock.now().timestamp() - asked.arrived_unix_s, 0.0)

    def _oldest_s(self, service: str) -> float:
        line = self._lines.get(service)
        if line is None or not line.waiters:
            return 0.0
        return max(self._clock.now().timestamp() - line.waiters[0].arrived_unix_s, 0.0)

    def _tell(self, service: str) -> None:
        if line := self._lines.get(service):
            line.news()

    async def _send(self, service: str, least: int = 0) -> None:
        metrics = HoldMetrics(
            workspace=self._workspace, service=service, at_unix_s=self._clock.now().timestamp(),
            held=max(self.held(service), least), oldest_s=round(self._oldest_s(service), 3),
        )  # fmt: skip
        try:
            await self._publish(service, metrics)
        except (BusError, TimeoutError) as error:
            log.warning("waking message not sent; it is repeated", service=service, error=repr(error))


async def _within(event: asyncio.Event, longest_s: float) -> None:
    try:
        async with asyncio.timeout(longest_s):
            await event.wait()
    except TimeoutError:
        return
