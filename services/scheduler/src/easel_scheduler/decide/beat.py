"""What a node's silence means. Less than the lease: nothing; then not ready; then lost."""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.states import NODE, step
from easel_scheduler.decide.world import Reason


class Verdict(Struct, frozen=True):
    """A node's state, why, and when silence alone would change it."""

    state: str
    why: Reason
    again_s: float | None


def verdict(before: str, silent_s: float, *, connected: bool, lease_s: float, lost_s: float) -> Verdict:
    """`silent_s`: since the agent was last heard, or since we began to listen, whichever is later."""
    if connected and silent_s < lease_s:
        step("node", NODE, before, "ready")
        return Verdict("ready", Reason("AgentBeats", "its agent is connected"), lease_s - silent_s)
    if silent_s < lease_s:
        return Verdict(before, Reason("WithinLease", f"silent for {silent_s:.0f} s"), lease_s - silent_s)
    if silent_s < lost_s and before != "lost":
        step("node", NODE, before, "not_ready")
        why = f"its agent has been silent for {silent_s:.0f} s, longer than its lease of {lease_s:g} s"
        return Verdict("not_ready", Reason("AgentSilent", why), lost_s - silent_s)
    why = f"its agent has been silent for {silent_s:.0f} s; after {lost_s:g} s its replicas are replaced elsewhere"
    return Verdict("lost", Reason("NodeLost", why), None)
