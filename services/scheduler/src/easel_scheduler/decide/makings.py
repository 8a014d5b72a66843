"""How many replicas are to be made, of which revision. Never more than wanted + surge are active."""

from __future__ import annotations

from msgspec import Struct

from easel_scheduler.decide.backoff import Hold, hold
from easel_scheduler.decide.bounds import stable_wanted, surge_now
from easel_scheduler.decide.parts import Limits, Parts, identity_of
from easel_scheduler.decide.world import Snapshot


class Makings(Struct, frozen=True):
    """Replicas to make; those of the stable revision come first."""

    stable: int = 0
    target: int = 0
    held: Hold | None = None
    """Failures for which some are not made yet."""


def makings(s: Snapshot, p: Parts, m: Limits, service_uid: str) -> Makings:
    """What is missing, as far as it may be made now."""
    room = max(0, m.wanted + surge_now(p, m) - len(p.active))
    stable, held = 0, None
    if m.stable is not None:
        missing = max(0, stable_wanted(s, p, m) - len(p.stable))
        held = hold(s.replicas, identity_of(service_uid, m.stable), m.wanted, s.now) if missing else None
        stable = min(room, max(0, missing - (held.slots if held else 0)))
    missing = 0 if m.paused else max(0, m.target - len(p.target))
    held_too = hold(s.replicas, identity_of(service_uid, m.spec), m.target, s.now) if missing else None
    target = min(room - stable, max(0, missing - (held_too.slots if held_too else 0)))
    return Makings(stable, target, held or held_too)
