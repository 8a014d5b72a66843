"""When a process that ended is started again. Pure."""

from __future__ import annotations

FIRST_S = 0.0
STEP_S = 0.2
LONGEST_S = 10.0
STABLE_S = 30.0
"""A process that lived so long has shown that it can; its next end counts as the first."""


def delay_s(failures: int) -> float:
    """Seconds to wait before the next start, after so many short lives in a row (1 = the first)."""
    if failures <= 1:
        return FIRST_S
    return min(LONGEST_S, STEP_S * 2.0 ** min(failures - 2, 16))


def failures_after(failures: int, lived_s: float) -> int:
    """Short lives in a row, counting one that has just ended after `lived_s` seconds."""
    return 1 if lived_s >= STABLE_S else failures + 1
