"""Which replicas end, and when: at once what serves nobody, the others only as far as enough go on serving.

Must never: leave fewer than wanted − unavailable available by what is ended here, or end a healthy replica for one
that does not serve.
"""

from __future__ import annotations

from msgspec import Struct

from easel_scheduler.decide.bounds import may_miss_now, stable_wanted, surge_now
from easel_scheduler.decide.parts import Limits, Parts
from easel_scheduler.decide.victims import Pool, Ranking, pick
from easel_scheduler.decide.wanted import Wanted
from easel_scheduler.decide.world import Reason, Replica, Snapshot

Ending = tuple[Replica, Reason]


class Endings(Struct, frozen=True):
    """Who ends and why."""

    ended: tuple[Ending, ...]
    asks: bool = False
    """See Plan.asks_in_flight."""


def nothing_wanted(p: Parts, want: Wanted, service_uid: str, *, running: bool) -> Endings:
    """Everything that counts ends; what is isolated only with the service itself, or when it is marked."""
    why = Reason(want.code, want.message)
    if running:
        why = Reason("ScaleToZero", f"no replica is wanted: {want.message}; it finishes the requests it has")
    isolated = [(r, why) for r in p.isolated if not running] or _isolated(p, service_uid)
    return Endings(tuple([(r, why) for r in p.active] + isolated))


def at_once(p: Parts, m: Limits, ranks: Ranking, want: Wanted, service_uid: str) -> Endings:
    """What ends whatever the others do: nobody loses an answer by it, or it was asked for."""
    ended = [(r, _superseded(r, m)) for r in p.leftover if not r.in_traffic]
    ended += [(r, _asked(r)) for r in p.marked if r.replacing == "now" or not r.in_traffic]
    surplus = len(p.target) - m.target
    picked = pick((Pool(tuple(r for r in p.target if not p.available(r)), surplus),), surplus, ranks)
    ended += [(r, _scale_in(p, m, want, picked.words[r.id])) for r in picked.replicas]
    return Endings(tuple(ended + _isolated(p, service_uid)))


def as_replaced(s: Snapshot, p: Parts, m: Limits, ranks: Ranking, want: Wanted) -> Endings:
    """What ends as far as others serve in its stead."""
    too_many = max(0, len(p.target) - m.target)
    pools = (
        Pool(p.leftover, len(p.leftover)),
        Pool(p.marked, len(p.marked)),
        Pool(p.stable, _stable_surplus(s, p, m, too_many)),
        Pool(p.target, too_many),
    )
    # The first to go are those that do not serve: what stays of a pool serves as far as anything in it does.
    staying = sum(min(p.serving(x.replicas), len(x.replicas) - x.most) for x in pools)
    needed = max(0, m.wanted - may_miss_now(p, m) - staying)
    picked = pick(pools, sum(x.most for x in pools) - needed, ranks)
    return Endings(tuple((r, _why(r, p, m, want, picked.words[r.id])) for r in picked.replicas), picked.asks)


def _stable_surplus(s: Snapshot, p: Parts, m: Limits, too_many_of_target: int) -> int:
    """Stable replicas above what is wanted of them; in a paused rollout, only what is more than may be at all."""
    if not m.paused:
        return max(0, len(p.stable) - stable_wanted(s, p, m))
    over = len(p.active) - too_many_of_target - m.wanted - surge_now(p, m)
    return min(max(0, over), len(p.stable))


def _isolated(p: Parts, service_uid: str) -> list[Ending]:
    """Isolated replicas are nobody's to end, unless somebody says so, or their service is another's by now."""
    gone = Reason("ServiceDeleted", "its service was deleted; another has its name now")
    ended = [(r, gone) for r in p.isolated if r.service_uid != service_uid]
    return ended + [(r, _asked(r)) for r in p.isolated if r.replacing and r.service_uid == service_uid]


def _superseded(r: Replica, m: Limits) -> Reason:
    served = "never served" if r.ready_at is None else "does not serve"
    return Reason("Superseded", f"revision {m.spec.number} is wanted and it {served}")


def _asked(r: Replica) -> Reason:
    how = "at once" if r.replacing == "now" else "and no request reaches it"
    return Reason("RestartAsked", f"its replacement was asked for, {how}")


def _scale_in(p: Parts, m: Limits, want: Wanted, words: str) -> Reason:
    of = f" of revision {m.spec.number}" if m.stable is not None else ""
    shown = f"{len(p.target)} replicas{of}, {m.target} wanted: {want.message}"
    return Reason("ScaleIn", f"{shown}; {words}" if words else shown)


def _why(r: Replica, p: Parts, m: Limits, want: Wanted, words: str) -> Reason:
    if r in p.target:
        return _scale_in(p, m, want, words)
    serving = p.serving(p.target)
    if r in p.marked:
        why = Reason("Replaced", "its replacement was asked for, and enough others serve")
    elif r in p.stable and (m.paused or (m.surge and not serving)):
        why = Reason("ScaleIn", f"{len(p.active)} replicas, {m.wanted} wanted: {want.message}")
    elif r in p.stable and not serving:
        why = Reason("Replaced", f"revision {m.spec.number} comes up in its stead: none may be above the {m.wanted} "
                     f"wanted and {m.may_miss} may be missing")  # fmt: skip
    else:
        why = Reason("Replaced", f"{serving} replicas of revision {m.spec.number} are ready and routed in its stead")
    return Reason(why.code, f"{why.message}; {words}" if words else why.message)
