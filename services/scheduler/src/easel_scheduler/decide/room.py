"""How a new revision gets in where nothing fits beside the old replicas: one of them at a time makes room for it."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from easel_scheduler.decide.parts import Limits, Parts
from easel_scheduler.decide.placing import makes_room
from easel_scheduler.decide.victims import Pool, Ranking, pick
from easel_scheduler.decide.world import Drain, Need, Reason, Replica, Snapshot, Wait

UNREADY_FOR_S = 30.0
"""A stable replica that has not been ready for this long may make room for its successor."""


class Room(Struct, frozen=True):
    """Who makes room; or what stands against it."""

    drain: tuple[Drain, ...] = ()
    wait: tuple[Wait, ...] = ()
    asks: bool = False


def make_room(s: Snapshot, p: Parts, m: Limits, ranks: Ranking, placed: int) -> Room:
    """First one that has long not served; else, where some may be missing, one that serves. Never two at once.

    `placed`: active replicas that have a node once this plan is carried out, and those that made room before.
    """
    if m.paused or any(r.state == "draining" for r in s.replicas):
        return Room()
    outlived = [r for r in p.stable if r.ready_at is not None]
    broken = [r for r in outlived if long_unready(r, s.now)] if len(outlived) > m.beside else []
    if broken:
        oldest = min(broken, key=lambda r: (r.state_at, r.id))
        since = f"it has been {oldest.state} since {oldest.state_at:%H:%M:%S} UTC"
        return Room((Drain(oldest.id, Reason("MakesRoom", f"its successor finds no room and {since}")),))
    surplus = p.stable if p.serving(p.stable) > m.beside else ()
    served = tuple(r for r in (*surplus, *p.leftover) if p.available(r))
    if not m.may_miss or p.marked or p.serving(p.active) - 1 < min(m.wanted, placed) - m.may_miss:
        return Room()
    return _one_that_serves(s, m, ranks, served)


def long_unready(r: Replica, now: datetime) -> bool:
    """Whether it served and has not been ready for long."""
    long = now - r.state_at >= timedelta(seconds=UNREADY_FOR_S)
    return r.ready_at is not None and r.state != "ready" and long


def _one_that_serves(s: Snapshot, m: Limits, ranks: Ranking, served: tuple[Replica, ...]) -> Room:
    need = Need.of(m.spec)
    useful = tuple(r for r in served if makes_room(r, need, s.nodes))
    picked = pick((Pool(useful, 1),), 1, ranks)
    if not picked.replicas:
        number = m.spec.number
        message = f"no single replica's end would make room for one of revision {number}, so none is ended for it"
        return Room(wait=(Wait(None, Reason("NoRoomBeside", message)),) if served else ())
    (r,) = picked.replicas
    allowed = f"{m.may_miss} of {m.wanted} may be missing meanwhile"
    why = f"revision {m.spec.number} finds no room beside the older replicas, and {allowed}"
    words = f"; {picked.words[r.id]}" if picked.words[r.id] else ""
    return Room((Drain(r.id, Reason("MakesRoom", why + words)),), asks=picked.asks)
