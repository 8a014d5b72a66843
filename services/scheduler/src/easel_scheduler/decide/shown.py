"""Which replicas people see first, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence

from easel_scheduler.decide.world import Reason, Replica


def shown(replicas: Sequence[Replica], *, everything: bool) -> list[Replica]:
    """Those that live, oldest first; where none does, the one that failed last, so that its reason is seen.

    `everything`: also all that ended, newest first.
    """
    live = sorted((r for r in replicas if r.live), key=lambda r: (r.created_at, r.id))
    ended = sorted((r for r in replicas if not r.live), key=lambda r: r.ended_at or r.state_at, reverse=True)
    if everything:
        return live + ended
    if live:
        return live
    newest = ended[:1]
    return [r for r in newest if r.state == "failed"]


def said(r: Replica) -> Reason:
    """Why it is as it is: what its row says, and before that what was asked of it."""
    why = _asked(r) if r.live and r.state != "draining" else None
    if why is None:
        return Reason(r.cause, r.message)
    return Reason(why.code, f"{why.message}. {r.message}" if r.message else why.message)


def _asked(r: Replica) -> Reason | None:
    since = f" since {r.out_at:%H:%M:%S} UTC" if r.out_at else ""
    if r.out_of_traffic == "isolated":
        return Reason("Isolated", f"taken out of traffic{since}: it lives, no new request reaches it, and another "
                      "stands in for it")  # fmt: skip
    if r.out_of_traffic == "restarting" and r.restarts_in_place:
        return Reason("Restarting", f"out of traffic{since}: its process is started anew as soon as no request is left")
    if r.out_of_traffic == "restarting":
        return Reason("Restarting", f"out of traffic{since}: its process was started anew and is not ready yet")
    if r.restarts_in_place:
        return Reason("AwaitsRestart", "its process is to be started anew; replicas of a service take turns")
    if r.replacing:
        return Reason("AwaitsSuccessor", "its replacement was asked for; it serves until enough others do")
    return None
