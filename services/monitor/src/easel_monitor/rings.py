"""The last hour of every service in memory, bounded: seconds for 5 minutes, tens of seconds for an hour.

A ring knows for each slot which time it holds, so a span nobody measured is absent, not zero. Memory per service:
about 25 KiB without traffic, 135 KiB once it had some (the counters are allocated at its first request).
"""

from __future__ import annotations

from array import array

from easel_monitor.decide import histogram
from easel_monitor.decide.cell import NONE, Cell, Five, add_five

SECONDS_KEPT = 300
TENS_KEPT = 360

_FLOATS = 8
_COUNTS = 7 + len(histogram.BOUNDS_MS) + 1
_NO_COUNTS = (0,) * _COUNTS


class Ring:
    """Cells of one length; putting into a slot adds to what is there for that time, or replaces an older time."""

    def __init__(self, step_s: int, slots: int) -> None:
        self.step_s = step_s
        self.slots = slots
        self._starts = array("Q", bytes(8 * slots))
        self._floats = array("f", bytes(4 * slots * _FLOATS))
        self._counts: array[int] | None = None
        self._refused: dict[int, Five] = {}
        """By slot: few spans have any."""

    def put(self, cell: Cell) -> None:
        """Adds a cell to the slot its start falls in; what is older than the slot's content is dropped."""
        start = cell.start_s - cell.start_s % self.step_s
        slot = (start // self.step_s) % self.slots
        if start < self._starts[slot]:
            return
        at = slot * _FLOATS
        f = self._floats
        if start > self._starts[slot]:
            self._starts[slot] = start
            self._refused.pop(slot, None)
            for i in range(at, at + _FLOATS):
                f[i] = 0.0
            if self._counts is not None:
                self._counts[slot * _COUNTS : (slot + 1) * _COUNTS] = array("I", _NO_COUNTS)
        f[at] += cell.interval_s
        f[at + 1] += cell.in_flight_s
        f[at + 2] += cell.ready_s
        f[at + 3] += cell.usage_s
        f[at + 4] += cell.cpu_core_s
        f[at + 5] += cell.memory_mib_s
        f[at + 6] += cell.span_s
        f[at + 7] += cell.total_s
        if cell.latency or cell.retries or cell.timeouts or any(cell.requests):
            self._count(slot, cell)
        if any(cell.refused):
            self._refused[slot] = add_five(self._refused.get(slot, NONE), cell.refused)

    def between(self, from_s: int, to_s: int) -> list[Cell]:
        """The cells that start in [from_s, to_s), oldest first."""
        first = from_s + -from_s % self.step_s
        first = max(first, to_s - to_s % self.step_s - (self.slots - 1) * self.step_s)
        found = []
        for start in range(first, to_s, self.step_s):
            slot = (start // self.step_s) % self.slots
            if self._starts[slot] == start:
                found.append(self._cell(slot))
        return found

    def newest(self) -> Cell | None:
        """The latest cell; None when nothing was ever put."""
        slot = max(range(self.slots), key=self._starts.__getitem__)
        return self._cell(slot) if self._starts[slot] else None

    def memory_bytes(self) -> int:
        """What the arrays take."""
        arrays = (self._starts, self._floats, self._counts or array("I"))
        return sum(a.itemsize * len(a) for a in arrays)

    def _count(self, slot: int, cell: Cell) -> None:
        if self._counts is None:
            self._counts = array("I", bytes(4 * self.slots * _COUNTS))
        counts, at = self._counts, slot * _COUNTS
        for i, n in enumerate((*cell.requests, cell.retries, cell.timeouts, *cell.latency), at):
            if n:
                counts[i] += n

    def _cell(self, slot: int) -> Cell:
        f = self._floats[slot * _FLOATS : (slot + 1) * _FLOATS]
        c = _NO_COUNTS if self._counts is None else tuple(self._counts[slot * _COUNTS : (slot + 1) * _COUNTS])
        return Cell(
            start_s=self._starts[slot],
            interval_s=f[0],
            requests=(c[0], c[1], c[2], c[3], c[4]),
            retries=c[5],
            timeouts=c[6],
            in_flight_s=f[1],
            ready_s=f[2],
            usage_s=f[3],
            cpu_core_s=f[4],
            memory_mib_s=f[5],
            span_s=f[6],
            total_s=f[7],
            latency=c[7:] if any(c[7:]) else histogram.EMPTY,
            refused=self._refused.get(slot, NONE),
        )


class History:
    """One service's last hour."""

    def __init__(self) -> None:
        self.seconds = Ring(1, SECONDS_KEPT)
        self.tens = Ring(10, TENS_KEPT + 1)

    def put(self, cell: Cell) -> None:
        """Adds one second."""
        self.seconds.put(cell)
        self.tens.put(cell)

    def memory_bytes(self) -> int:
        """What both rings take."""
        return self.seconds.memory_bytes() + self.tens.memory_bytes()

    def window(self, now_s: int, window_s: int) -> list[Cell]:
        """The cells of the last window: ended seconds up to 298 s; tens of seconds beyond, the running ten too."""
        if window_s <= SECONDS_KEPT - 2:
            return self.seconds.between(now_s - window_s, now_s)
        return self.tens.between(now_s - window_s, now_s + 1)
