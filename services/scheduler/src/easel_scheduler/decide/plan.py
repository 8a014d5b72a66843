"""What has to change so that a service has the replicas it should have.

Surge first: replicas of a new revision come up beside the old, and an old one is drained only for a new one that is
ready and routed. Must never: exceed wanted + surge, place beyond a node's room, spend a healthy replica on a revision
that is not serving, or read missing data as an empty world.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from msgspec import Struct

from easel_contracts.facts import ServiceState
from easel_scheduler.decide.backoff import Hold, hold
from easel_scheduler.decide.placing import choose
from easel_scheduler.decide.wanted import Wanted, wanted
from easel_scheduler.decide.world import (
    Create,
    Drain,
    Identity,
    Need,
    Place,
    Plan,
    Reason,
    Replica,
    Snapshot,
    Stop,
    Wait,
)

SURGE = 0.25
"""Replicas above the wanted number during a release, as a share of it; at least one."""

UNREADY_FOR_S = 30.0
"""An outdated replica that has not been ready for this long may make room for its successor."""


class Counts(Struct, frozen=True, kw_only=True):
    """The plan without places: made without knowing the nodes."""

    wanted: Wanted
    create: int
    drain: tuple[Drain, ...]
    stop: tuple[Stop, ...]
    pending: tuple[Replica, ...]
    """To be placed, oldest first."""
    spare: tuple[Replica, ...]
    """Outdated and long not ready: drained when their successor finds no room."""
    hold: Hold | None
    route_wait: Wait | None


def surge(count: int) -> int:
    """How many replicas above `count` a release may run."""
    return max(1, math.ceil(count * SURGE))


def plan(s: Snapshot) -> Plan:
    """Every change to the service's replicas; the same snapshot gives the same plan, and applied it leaves none."""
    if s.service is None:
        why = Reason("AwaitsService", "control has not told about this service yet; its replicas are kept")
        return Plan(wait=(Wait(None, why),))
    return with_places(s, counts(s, s.service))


def counts(s: Snapshot, service: ServiceState) -> Counts:
    """How many to create, and which to drain or stop."""
    active = [r for r in s.replicas if r.live and r.state != "draining"]
    want = wanted(service, s.scale)
    identity = Identity(service.uid, service.revision.number, service.revision.restart_nonce)
    routed = frozenset(s.route.replicas) if s.route is not None else frozenset[str]()

    current = [r for r in active if r.identity == identity]
    outdated = [r for r in active if r.identity != identity]
    serving = [r for r in current if r.state == "ready" and r.id in routed]

    unborn = [r for r in outdated if r.ready_at is None]
    outlived = [r for r in outdated if r.ready_at is not None]
    excess_old = len(outlived) - max(0, want.count - len(serving))
    old_victims = _victims(outlived, excess_old, routed)
    victims = _victims(current, len(current) - want.count, routed)

    kept_old = [r for r in outlived if r not in old_victims]
    kept = [r for r in current if r not in victims]
    deficit = min(want.count - len(kept), want.count + surge(want.count) - len(kept) - len(kept_old))
    held = hold(s.replicas, identity, want.count, s.now)
    create = max(0, deficit - (held.slots if held else 0)) if want.count else 0

    superseded = Reason("Superseded", f"revision {service.revision.number} is wanted and it never served")
    ended = [(r, superseded) for r in unborn]
    ended += [(r, _old_reason(want, service, len(serving))) for r in old_victims]
    ended += [(r, Reason("ScaleIn", f"{len(current)} replicas, {want.count} wanted: {want.message}")) for r in victims]
    return Counts(
        wanted=want,
        create=create,
        drain=tuple(Drain(r.id, why) for r, why in ended if r.state != "pending"),
        stop=tuple(Stop(r.id, why) for r, why in ended if r.state == "pending"),
        pending=tuple(sorted((r for r in kept if r.state == "pending"), key=lambda r: (r.created_at, r.id))),
        spare=tuple(r for r in kept_old if _long_unready(r, s.now)),
        hold=held if deficit > 0 else None,
        route_wait=_awaits_route(kept_old, kept, routed, service),
    )


def with_places(s: Snapshot, c: Counts) -> Plan:
    """The whole plan: places for what is pending or new, room made where nothing fits."""
    assert s.service is not None
    need_new = Need.of(s.service.revision)
    nodes, create, place, wait = s.nodes, list[Create](), list[Place](), list[Wait]()
    for r in c.pending:
        choice, nodes = choose(Need.of(r.spec), nodes)
        if choice.node is None:
            wait.append(Wait(r.id, choice.why, choice.refusals))
        else:
            place.append(Place(r.id, choice.node, choice.why, choice.refusals))
    for _ in range(c.create):
        choice, nodes = choose(need_new, nodes)
        create.append(Create(choice.node, choice.why, choice.refusals))
    squeezed = bool(wait) or any(new.node is None for new in create)
    drain = c.drain + (_make_room(s, c) if squeezed else ())
    if c.hold is not None:
        wait.append(Wait(None, _hold_reason(c.hold, s.now)))
    if c.route_wait is not None:
        wait.append(c.route_wait)
    return Plan(
        create=tuple(create),
        place=tuple(place),
        drain=drain,
        stop=c.stop,
        wait=tuple(wait),
        wake_after_s=_wake_after_s(s, c),
    )


def _victims(candidates: list[Replica], count: int, routed: frozenset[str]) -> list[Replica]:
    """Not ready first, then without traffic, then the older revision, then the newest."""
    if count <= 0:
        return []

    def order(r: Replica) -> tuple[bool, bool, int, float, str]:
        return (r.state == "ready", r.id in routed, r.generation, -r.created_at.timestamp(), r.id)

    return sorted(candidates, key=order)[:count]


def _old_reason(want: Wanted, service: ServiceState, serving: int) -> Reason:
    if not want.count:
        return Reason(want.code, want.message)
    return Reason(
        "Replaced", f"{serving} replicas of revision {service.revision.number} are ready and routed in its stead"
    )


def _awaits_route(
    kept_old: list[Replica], kept: list[Replica], routed: frozenset[str], service: ServiceState
) -> Wait | None:
    waiting = [r for r in kept if not (r.state == "ready" and r.id in routed)]
    if not kept_old or not waiting:
        return None
    number = service.revision.number
    ready = sum(r.state == "ready" for r in waiting)
    message = (
        f"{len(kept_old)} replicas of an older revision keep serving: of revision {number}, "
        f"{len(waiting) - ready} are not ready and {ready} are ready but not routed yet"
    )
    return Wait(None, Reason("AwaitsRoute", message))


def _make_room(s: Snapshot, c: Counts) -> tuple[Drain, ...]:
    """One long unready outdated replica at a time; never a healthy one."""
    leaving = any(r.state == "draining" for r in s.replicas) or bool(c.drain)
    if leaving or not c.spare:
        return ()
    oldest = min(c.spare, key=lambda r: (r.state_at, r.id))
    why = f"its successor finds no room and it has been {oldest.state} since {oldest.state_at:%H:%M:%S} UTC"
    return (Drain(oldest.id, Reason("MakesRoom", why)),)


def _long_unready(r: Replica, now: datetime) -> bool:
    return r.state != "ready" and now - r.state_at >= timedelta(seconds=UNREADY_FOR_S)


def _hold_reason(h: Hold, now: datetime) -> Reason:
    wait_s = (h.until - now).total_seconds()
    last = f"{h.last.id}: {h.last.message or h.last.cause}"
    return Reason("BackOff", f"{h.failures} replicas failed in a row; the next try is in {wait_s:.0f} s. Last: {last}")


def _wake_after_s(s: Snapshot, c: Counts) -> float | None:
    times = [c.hold.until] if c.hold is not None else []
    if c.pending or c.create:
        times += [
            r.state_at + timedelta(seconds=UNREADY_FOR_S)
            for r in s.replicas
            if r.live and r.ready_at is not None and r.state in ("starting", "unready", "fetching")
        ]
    future = [(t - s.now).total_seconds() for t in times if t > s.now]
    return min(future, default=None)
