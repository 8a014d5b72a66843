"""How far a rollout may go at this moment: what may be missing, what may be above, what the stable revision stands in
for. What is made and what is ended go by the same numbers, so that nothing is made to be ended again."""

from __future__ import annotations

from easel_scheduler.decide.parts import Limits, Parts
from easel_scheduler.decide.world import Snapshot


def surge_now(p: Parts, m: Limits) -> int:
    """Replicas above those wanted; one at least for the successor of one whose replacement was asked for."""
    return max(m.surge, 1) if p.marked else m.surge


def may_miss_now(p: Parts, m: Limits) -> int:
    """Replicas that may be missing by our own doing. While a surge is allowed, none until one of the new serves: a
    revision that never does costs no healthy replica."""
    if m.paused or p.replacing:
        return 0
    if not m.surge:
        return m.may_miss
    return m.unavailable if p.serving(p.target) else 0


def stable_wanted(s: Snapshot, p: Parts, m: Limits) -> int:
    """Replicas of the stable revision: its share, and until the target serves also what stands in for that. A stable
    replica that dies is therefore made anew, and one that made room for its successor is not. While requests are split,
    at least what serves the stable revision's share of them."""
    if m.stable is None:
        return 0
    served = sum(r.ready_at is not None for r in p.target)
    cover = min(m.target, served) + len(p.leftover)
    given_up = 0
    if not m.paused:
        given_up = max(may_miss_now(p, m), m.unavailable if served else 0) + made_room(s, p)
    return max(m.beside, m.wanted - given_up - cover)


def made_room(s: Snapshot, p: Parts) -> int:
    """Replicas that made room for those of the target that do not serve yet: the room is not theirs any more."""
    since = min((r.created_at for r in p.target if r.ready_at is None), default=None)
    if since is None:
        return 0
    return sum(r.cause == "MakesRoom" and r.draining_at is not None and r.draining_at >= since for r in s.replicas)
