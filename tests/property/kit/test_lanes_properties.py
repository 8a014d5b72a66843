"""The rule of order over generated deliveries: handlers of any length, failures, messages delivered again."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from easel_kit.lanes import Held, Lanes


class Given(Struct, frozen=True):
    """One message: how long its handler takes, how often it fails, when it is delivered again while it is here."""

    key: str
    pauses: int
    failures: int
    twice: bool


AT_ONCE, HOLD = 3, 4
messages = st.lists(
    st.builds(Given, st.sampled_from("abcd"), st.integers(0, 3), st.sampled_from([0, 0, 0, 1, 2]), st.booleans()),
    max_size=25,
)  # fmt: skip


class Bus:
    """Delivers in order, again after a failure, and some twice; checks the rule at every moment."""

    def __init__(self, given_messages: list[Given]) -> None:
        self.given = given_messages
        self.here: set[int] = set()
        self.busy: list[int] = []
        self.tries: Counter[int] = Counter()
        self.done: list[int] = []
        self.again: list[int] = []
        self.most_here = 0
        self.wrong: list[object] = []
        self.lanes: Lanes[int] = Lanes(self.handle, at_once=AT_ONCE, hold=HOLD)

    async def handle(self, held: Held[int]) -> None:
        one = held.message
        rivals = [n for n in self.here if self.given[n].key == self.given[one].key and n not in self.busy]
        self.wrong += [("not the lowest", one, rivals)] if one != min(rivals) else []
        self.wrong += [("two of one key", one, n) for n in self.busy if self.given[n].key == self.given[one].key]
        self.busy.append(one)
        self.wrong += [("too many", one, len(self.busy))] if len(self.busy) > AT_ONCE else []
        for _ in range(self.given[one].pauses):
            await asyncio.sleep(0)
        self.tries[one] += 1
        (self.again if self.tries[one] <= self.given[one].failures else self.done).append(one)
        self.busy.remove(one)
        self.here.discard(one)

    def put(self, one: int) -> None:
        self.here.add(one)
        self.most_here = max(self.most_here, len(self.here))
        self.lanes.put(self.given[one].key, one, one)

    async def deliver(self) -> None:
        todo = list(range(len(self.given)))
        while len(self.done) < len(self.given):
            fetched = self.again[:2] + todo[:2]
            del self.again[:2], todo[:2]
            for one in fetched:
                self.put(one)
                if self.given[one].twice:
                    self.put(one)
            await self.lanes.room()
            await asyncio.sleep(0)


@given(messages)
@settings(deadline=None, max_examples=300)
def test_every_message_is_handled_and_the_lowest_of_its_key_first(given_messages: list[Given]) -> None:
    """Each until it succeeds and once only; never two of a key at once; bounded; in order where nothing failed."""
    bus = Bus(given_messages)

    async def run() -> None:
        async with asyncio.timeout(10):
            await bus.deliver()
        assert await bus.lanes.finish(1.0) == []

    asyncio.run(run())

    assert bus.wrong == []
    assert sorted(bus.done) == list(range(len(given_messages)))
    assert all(bus.tries[n] == one.failures + 1 for n, one in enumerate(given_messages))
    assert bus.most_here < HOLD + 4
    for key in "abcd":
        never_failed = [n for n in bus.done if given_messages[n].key == key and given_messages[n].failures == 0]
        assert never_failed == sorted(never_failed)
