"""Lanes: order within a key, bounds, messages that fail or come twice, the end."""

from __future__ import annotations

import asyncio

import pytest

from easel_kit.lanes import Held, Lanes


class Work:
    """A handler that stands still until it is let go, and remembers what it saw."""

    def __init__(self, at_once: int = 3, hold: int = 100) -> None:
        self.lanes: Lanes[str] = Lanes(self._handle, at_once=at_once, hold=hold)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._gates: dict[str, asyncio.Event] = {}

    async def _handle(self, held: Held[str]) -> None:
        begun_as = held.message
        self.begun.append(begun_as)
        await self._gates.setdefault(begun_as, asyncio.Event()).wait()
        if begun_as.startswith("bad"):
            raise RuntimeError(begun_as)
        self.ended.append(held.message)

    async def let(self, *messages: str) -> None:
        for message in messages:
            self._gates.setdefault(message, asyncio.Event()).set()
        await settle()


async def settle() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_key_is_in_order_and_others_do_not_wait_for_it() -> None:
    """a2 waits for a1, b1 for nobody."""
    work = Work()
    for key, sequence, message in (("a", 1, "a1"), ("a", 2, "a2"), ("b", 3, "b1")):
        work.lanes.put(key, sequence, message)
    await settle()
    assert work.begun == ["a1", "b1"]

    await work.let("b1", "a1")

    assert work.begun == ["a1", "b1", "a2"]
    assert work.ended == ["b1", "a1"]


async def test_the_lowest_sequence_of_a_key_is_next_whenever_it_came() -> None:
    """One delivered again goes before those that still wait, and so does a fetch that came in disorder."""
    work = Work()
    for sequence in (3, 1, 5):
        work.lanes.put("a", sequence, f"a{sequence}")
    await settle()
    work.lanes.put("a", 2, "a2")
    await work.let("a1", "a2", "a3", "a5")

    assert work.ended == ["a1", "a2", "a3", "a5"]


async def test_no_more_keys_at_a_time_than_allowed() -> None:
    """The fourth key waits for a slot, and keys with much do not keep theirs."""
    work = Work(at_once=2)
    for n in range(4):
        work.lanes.put("much", n, f"m{n}")
    for n in range(10, 13):
        work.lanes.put(f"k{n}", n, f"k{n}")
    await settle()
    assert work.begun == ["m0", "k10"]

    await work.let("m0")

    assert work.begun == ["m0", "k10", "k11"]


async def test_a_handler_that_raises_does_not_stop_its_key() -> None:
    """The next message of the key is handled."""
    work = Work()
    work.lanes.put("a", 1, "bad")
    work.lanes.put("a", 2, "a2")
    await work.let("bad", "a2")

    assert work.ended == ["a2"]
    assert work.lanes.held() == []


async def test_delivered_again_while_it_is_here_it_is_handled_once() -> None:
    """By its newest copy it is settled; waiting or being handled makes no difference."""
    work = Work()
    work.lanes.put("a", 1, "a1")
    work.lanes.put("a", 2, "a2")
    await settle()
    work.lanes.put("a", 1, "a1 again")
    work.lanes.put("a", 2, "a2 again")
    await work.let("a1", "a2 again")

    assert work.ended == ["a1 again", "a2 again"]
    work.lanes.put("a", 1, "a1 later")
    await work.let("a1 later")
    assert work.ended[2:] == ["a1 later"]


async def test_who_feeds_waits_for_room() -> None:
    """With `hold` messages here there is none; when one is done there is."""
    work = Work(hold=2)
    work.lanes.put("a", 1, "a1")
    await work.lanes.room()
    work.lanes.put("a", 2, "a2")
    waiting = asyncio.create_task(work.lanes.room())
    await settle()
    assert not waiting.done()

    await work.let("a1")

    assert waiting.done()


async def test_at_the_end_what_is_here_is_handled_or_given_back() -> None:
    """What ends in time is settled; what does not, and what waits behind it, comes out. Nothing more is fed."""
    work = Work()
    for sequence, (key, message) in enumerate((("a", "a1"), ("a", "a2"), ("b", "b1")), 1):
        work.lanes.put(key, sequence, message)
    await settle()
    work.lanes.shut()
    feeding = asyncio.create_task(work.lanes.room())
    await work.let("b1")
    assert not feeding.done()

    assert await work.lanes.finish(0.0) == ["a1", "a2"]
    assert work.ended == ["b1"]
    work.lanes.release()
    await settle()
    assert feeding.done()


@pytest.mark.parametrize("messages", [0, 5])
async def test_nothing_is_given_back_where_all_is_handled(messages: int) -> None:
    """Also where there was nothing."""
    work = Work()
    for sequence in range(messages):
        work.lanes.put(f"k{sequence % 2}", sequence, f"m{sequence}")
    await work.let(*(f"m{n}" for n in range(messages)))

    assert await work.lanes.finish(10.0) == []
    assert sorted(work.ended) == [f"m{n}" for n in range(messages)]
