"""What has to change so that a service has the replicas it should have.

Surge first: replicas of a new revision come up beside the old, and an old one is drained only for a new one that is
ready and routed. Must never: exceed wanted + surge, place beyond a node's room, spend a healthy replica on a revision
that is not serving, or read missing data as an empty world.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from easel_contracts.facts import ServiceState
from easel_contracts.spec import RevisionSpec
from easel_scheduler.decide.backoff import Hold
from easel_scheduler.decide.bounds import made_room
from easel_scheduler.decide.endings import Ending, as_replaced, at_once, nothing_wanted
from easel_scheduler.decide.makings import Makings, makings
from easel_scheduler.decide.parts import Limits, Parts, identity_of, limits, parts
from easel_scheduler.decide.placing import choose
from easel_scheduler.decide.room import UNREADY_FOR_S, make_room
from easel_scheduler.decide.soft import soft_restarts
from easel_scheduler.decide.victims import ranking
from easel_scheduler.decide.wanted import wanted
from easel_scheduler.decide.world import (
    Create,
    Drain,
    Need,
    Place,
    Plan,
    Reason,
    Replica,
    Snapshot,
    Stop,
    TakeOut,
    Wait,
)


class Counts(Struct, frozen=True, kw_only=True):
    """The plan without places: made without knowing the nodes."""

    limits: Limits
    left: Parts
    """What is not ended."""
    make: Makings = Makings()
    drain: tuple[Drain, ...] = ()
    stop: tuple[Stop, ...] = ()
    take_out: tuple[TakeOut, ...] = ()
    wait: tuple[Wait, ...] = ()
    asks: bool = False
    """See Plan.asks_in_flight."""

    @property
    def pending(self) -> tuple[Replica, ...]:
        """To be placed: those of the stable revision first, then the oldest."""
        waiting = [r for r in self.left.active if r.state == "pending"]
        return tuple(sorted(waiting, key=lambda r: (r not in self.left.stable, r.created_at, r.id)))

    @property
    def places(self) -> bool:
        """Whether the nodes have to be known."""
        return bool(self.pending or self.make.stable or self.make.target)


def plan(s: Snapshot) -> Plan:
    """Every change to the service's replicas; the same snapshot gives the same plan, and applied it leaves none."""
    if s.service is None:
        why = Reason("AwaitsService", "control has not told about this service yet; its replicas are kept")
        return Plan(wait=(Wait(None, why),))
    return with_places(s, counts(s, s.service))


def counts(s: Snapshot, service: ServiceState) -> Counts:
    """How many to create, and which to drain or stop."""
    want = wanted(service, s.scale)
    m = limits(service, want.count, s.route)
    p = parts(s, service, m)
    if not want.count:
        found = nothing_wanted(p, want, service.uid, running=service.wanted == "running")
        drain, stop, left = _ended(p, found.ended)
        return Counts(limits=m, left=left, drain=drain, stop=stop)
    ranks = ranking(p, s.in_flight)
    first = at_once(p, m, ranks, want, service.uid)
    rest = _ended(p, first.ended)[2]
    then = as_replaced(s, rest, m, ranks, want)
    drain, stop, left = _ended(p, first.ended + then.ended)
    make = makings(s, left, m, service.uid)
    soft = soft_restarts(left, m)
    waits = soft.wait + _awaits_route(left, m) + _awaits_successor(left) + _held(make.held, s.now)
    return Counts(limits=m, left=left, make=make, drain=drain, stop=stop, take_out=soft.take_out,
                  wait=waits, asks=then.asks)  # fmt: skip


def with_places(s: Snapshot, c: Counts) -> Plan:
    """The whole plan: places for what is pending or new, room made where nothing of the new revision fits."""
    nodes, create, place, wait = s.nodes, list[Create](), list[Place](), list[Wait]()
    squeezed, beside = False, _beside_older(s, c)
    for what in _to_place(s, c):
        if squeezed and beside and not isinstance(what, Replica):
            break  # one of the new revision waits for room beside the old: more would only wait with it
        spec = what.spec if isinstance(what, Replica) else what
        choice, nodes = choose(Need.of(spec), nodes)
        squeezed = squeezed or (choice.node is None and spec == c.limits.spec)
        if not isinstance(what, Replica):
            create.append(Create(spec, choice.node, choice.why, choice.refusals))
        elif choice.node is None:
            wait.append(Wait(what.id, choice.why, choice.refusals))
        else:
            place.append(Place(what.id, choice.node, choice.why, choice.refusals))
    drain, asks = c.drain, c.asks
    if squeezed and not drain:
        placed = sum(r.node is not None for r in c.left.active) + sum(new.node is not None for new in create)
        placed += len(place) + made_room(s, c.left)
        room = make_room(s, c.left, c.limits, ranking(c.left, s.in_flight), placed)
        drain, asks = drain + room.drain, asks or room.asks
        wait += room.wait
    return Plan(
        create=tuple(create), place=tuple(place), drain=drain, stop=c.stop, take_out=c.take_out,
        wait=(*wait, *c.wait), asks_in_flight=asks and s.in_flight is None, wake_after_s=_wake_after_s(s, c),
    )  # fmt: skip


def _beside_older(s: Snapshot, c: Counts) -> bool:
    """Whether others than those of the target revision are there still, also such as drain."""
    assert s.service is not None
    target, stopped = identity_of(s.service.uid, c.limits.spec), {x.replica for x in c.stop}
    others = (r for r in s.replicas if r.live and r.identity != target and r.id not in stopped)
    return any(r.out_of_traffic != "isolated" for r in others)


def _to_place(s: Snapshot, c: Counts) -> list[Replica | RevisionSpec]:
    """In the order in which room is given: those for whom it was made, then what has proved itself, then the others."""
    stable = [r for r in c.pending if r in c.left.stable]
    others = [r for r in c.pending if r not in c.left.stable]
    come_up = sum(r.node is not None and r.ready_at is None for r in c.left.target)
    theirs = max(0, made_room(s, c.left) - come_up)
    more = [c.limits.stable] * c.make.stable if c.limits.stable is not None else []
    return [*others[:theirs], *stable, *more, *others[theirs:], *[c.limits.spec] * c.make.target]


def _ended(p: Parts, ended: tuple[Ending, ...]) -> tuple[tuple[Drain, ...], tuple[Stop, ...], Parts]:
    drain = tuple(Drain(r.id, why) for r, why in ended if r.state != "pending")
    stop = tuple(Stop(r.id, why) for r, why in ended if r.state == "pending")
    return drain, stop, p.without({r.id for r, _ in ended})


def _awaits_route(p: Parts, m: Limits) -> tuple[Wait, ...]:
    """What keeps older replicas serving."""
    waiting = [r for r in p.target if not p.available(r)]
    old = len(p.leftover) + max(0, len(p.stable) - m.beside)
    if not old or not waiting:
        return ()
    ready = sum(r.in_traffic for r in waiting)
    message = (
        f"{old} replicas of an older revision keep serving: of revision {m.spec.number}, "
        f"{len(waiting) - ready} are not ready and {ready} are ready but not routed yet"
    )
    return (Wait(None, Reason("AwaitsRoute", message)),)


def _awaits_successor(p: Parts) -> tuple[Wait, ...]:
    """What keeps replicas whose replacement was asked for."""
    if not p.marked:
        return ()
    others = [r for r in (*p.target, *p.stable) if not p.available(r)]
    no_room = [r for r in others if r.state == "pending"]
    names = ", ".join(sorted(r.id for r in p.marked))
    message = f"{names} {'is' if len(p.marked) == 1 else 'are'} replaced when enough others serve"
    if no_room:
        message += f"; {len(no_room)} of those find no room: {no_room[0].message or 'not placed yet'}"
    elif others:
        message += f"; {len(others)} of those do not yet"
    return (Wait(None, Reason("AwaitsSuccessor", message)),)


def _held(held: Hold | None, now: datetime) -> tuple[Wait, ...]:
    if held is None:
        return ()
    wait_s = (held.until - now).total_seconds()
    last = f"{held.last.id}: {held.last.message or held.last.cause}"
    message = f"{held.failures} replicas failed in a row; the next try is in {wait_s:.0f} s. Last: {last}"
    return (Wait(None, Reason("BackOff", message)),)


def _wake_after_s(s: Snapshot, c: Counts) -> float | None:
    times = [c.make.held.until] if c.make.held is not None else []
    if c.places:
        times += [
            r.state_at + timedelta(seconds=UNREADY_FOR_S)
            for r in c.left.stable
            if r.ready_at is not None and r.state in ("starting", "unready", "fetching")
        ]
    future = [(t - s.now).total_seconds() for t in times if t > s.now]
    return min(future, default=None)
