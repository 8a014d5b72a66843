"""Which replica's process is started anew next, of those for which somebody asked: one at a time in a service."""

from __future__ import annotations

from msgspec import Struct

from easel_scheduler.decide.parts import Limits, Parts
from easel_scheduler.decide.world import Reason, Replica, TakeOut, Wait

HAS_PROCESS = frozenset({"starting", "ready", "unready"})


class Soft(Struct, frozen=True):
    """The next, and what the others wait for."""

    take_out: tuple[TakeOut, ...] = ()
    wait: tuple[Wait, ...] = ()


def soft_restarts(p: Parts, m: Limits) -> Soft:
    """The next one leaves traffic when the one before is back in it. Those that do not serve go first; what is to be
    replaced anyway is left alone."""
    staying = (*p.target, *p.stable) if len(p.target) <= m.target else p.stable
    asked = [r for r in staying if r.restarts_in_place and not r.out_of_traffic and r.state in HAS_PROCESS]
    if not asked:
        return Soft()
    before = next((r for r in p.active if r.out_of_traffic == "restarting" or _returns(r, p)), None)
    if before is not None:
        return Soft(wait=(_waits(len(asked), before),))
    first, *others = sorted(asked, key=lambda r: (p.available(r), r.created_at, r.id))
    why = Reason("Restarting", "its process is started anew, as asked for; meanwhile no new request reaches it")
    return Soft((TakeOut(first.id, why),), (_waits(len(others), first),) if others else ())


def _returns(r: Replica, p: Parts) -> bool:
    """Started anew and ready, and the applied route does not name it yet."""
    return r.restart_done > 0 and not r.restarts_in_place and r.in_traffic and r.id not in p.routed


def _waits(count: int, before: Replica) -> Wait:
    waiting = f"{count} replicas wait" if count > 1 else "1 replica waits"
    why = f"{waiting} for a new process, one at a time: {before.id} has to be back in traffic first"
    return Wait(None, Reason("SoftRestart", why))
