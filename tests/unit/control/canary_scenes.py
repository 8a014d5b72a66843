"""Canaries in scenes for tests of decisions: a rollout of ten replicas, watched second by second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from easel_control.decide.canary import Canary
from easel_control.decide.canary_plan import Plan
from easel_control.decide.canary_rollout import begun
from easel_control.decide.canary_seconds import Reading, looked
from easel_control.decide.canary_steps import Move, Sight, next_step
from easel_control.decide.evidence import Counts, Second
from easel_control.decide.rollout import begun as rollout_begun
from easel_control.model import ServiceRow
from tests.unit.control.rows import SPEC, row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
BIN = 350
"""Of about 100 ms."""


def rolling(**more: Any) -> ServiceRow:
    """A service of ten whose revision 2 takes the place of revision 1."""
    given = {"instance": 10, "proven": True, "revision": replace(SPEC, number=2), "status": "Running", **more}
    before = row(**given)
    return replace(before, rollout=rollout_begun(SPEC, before.rolling, NOW, interrupt=False))


def started(**plan: Any) -> Canary:
    """A canary at its beginning."""
    return begun(rolling(), Plan(**plan), "c1", "ak", NOW)[1]


def sight(**more: Any) -> Sight:
    """Ten wanted, all that may be needed serve."""
    return Sight(**{"now": NOW, "wanted": 10, "serving": 10, "realised": 0, **more})


class Scene:
    """A canary that is looked at once a second. Gateways and replicas do at once what they are told, unless a test
    says otherwise; traffic is `rate` requests a second, shared as the weight says."""

    def __init__(self, **plan: Any) -> None:
        self.canary = started(**plan)
        self.now = NOW
        self.rate = 100
        self.errors = (0, 0)
        """Of stable and candidate, percent."""
        self.slow = (0, 0)
        """Percent of answers that are five times as slow."""
        self.wanted = 10
        self.serving: int | None = None
        """None: as many as the share needs."""
        self.more: dict[str, Any] = {}
        self.acts: list[str] = []
        self.live: int | None = None
        self._answered = [0, 0]

    def second(self) -> Second:
        """What was counted in the second before."""
        candidate = self.rate * (self.live or 0) // 1000
        at = int(self.now.timestamp()) - 1
        return Second(at, self._side(self.rate - candidate, 0), self._side(candidate, 1))

    def _side(self, requests: int, side: int) -> Counts:
        """Latencies spread over twenty bins; errors and slow answers as evenly among the requests as may be."""
        errors, bins = 0, dict[int, int]()
        for _ in range(requests):
            number = self._answered[side] = self._answered[side] + 1
            if number * 37 % 100 < self.errors[side]:
                errors += 1
                continue
            slow = 82 if number * 61 % 100 < self.slow[side] else 0
            bins[BIN + number * 7 % 20 + slow] = bins.get(BIN + number * 7 % 20 + slow, 0) + 1
        return Counts(requests, errors, bins)

    def look(self) -> Move | None:
        """One second on, and a look."""
        self.now += timedelta(seconds=1)
        serving = self.canary.needed(self.wanted) if self.serving is None else self.serving
        s = Sight(**{"now": self.now, "wanted": self.wanted, "serving": serving, "realised": self.live, **self.more})
        told = self.second()
        reading = Reading(seconds=(told,) if self.rate else (), final_through_s=told.unix_s)
        seen = looked(self.canary, reading, s.realised, s.serving, self.now)
        move = next_step(seen, s)
        before = self.canary
        self.canary = move.canary if move is not None else seen
        if move is not None and move.act != "note":
            self.acts.append(move.act)
        weight = self.canary.weight_permille
        assert weight <= before.weight_permille or serving >= self.canary.needed(self.wanted) or not self.wanted
        self.live = weight
        return move

    def until(self, *states: str, most: int = 4000) -> Scene:
        """Looks until it is in one of the states."""
        for _ in range(most):
            if self.canary.state in states:
                return self
            self.look()
        raise AssertionError(f"{self.canary.state}: {self.canary.waits_for}")

    def looks(self, count: int) -> Scene:
        for _ in range(count):
            self.look()
        return self

    def ended(self) -> Scene:
        """Looks until it is over."""
        for _ in range(4000):
            if not self.canary.is_on:
                return self
            self.look()
        raise AssertionError(f"{self.canary.state}: {self.canary.waits_for}")
