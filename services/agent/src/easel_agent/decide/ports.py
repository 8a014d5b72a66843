"""Decides which port a replica gets: next fit, so that a port just freed rests before it is given out again."""

from __future__ import annotations

from collections.abc import Container, Iterator


def candidates(first: int, last: int, after: int, taken: Container[int]) -> Iterator[int]:
    """Ports of the range that are not in `taken`, beginning behind `after` and wrapping round once."""
    size = last - first + 1
    start = (after + 1 - first) % size
    for step in range(size):
        port = first + (start + step) % size
        if port not in taken:
            yield port
