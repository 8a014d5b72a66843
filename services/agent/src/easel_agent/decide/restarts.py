"""Decides when a program that ended is started again. A replica is never given up here: the scheduler may replace it.

Back-off as in Kubernetes' kubelet: doubled with every failure in a row, capped, forgotten after a stable run.
"""

from __future__ import annotations

from msgspec import Struct

from easel_agent.model import Exit


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """All times in seconds."""

    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    stable_s: float = 60.0
    """A ready program that ran this long is not part of a row of failures."""
    loop_after: int = 3
    """So many failures in a row are called a crash loop."""


class Restart(Struct, frozen=True, kw_only=True):
    """What to do after an exit."""

    failures_in_row: int
    delay_s: float
    crash_loop: bool


def after_exit(exit_: Exit, failures_before: int, policy: RestartPolicy) -> Restart:
    """When to start again after `exit_`, the run before it having left `failures_before` failures in a row."""
    stable = exit_.was_ready and exit_.ran_s >= policy.stable_s
    failures = 1 if stable else failures_before + 1
    exponent = min(failures - 1, 32)
    return Restart(
        failures_in_row=failures,
        delay_s=min(policy.first_delay_s * 2**exponent, policy.longest_delay_s),
        crash_loop=failures >= policy.loop_after,
    )
