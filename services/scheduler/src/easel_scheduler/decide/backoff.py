"""When failed replicas are replaced. An agent restarts a process in place; this is for replicas it gave up.

The delay doubles with every round of failures (a round: as many as the service wants), from 1 s to 300 s. A replica
that served for a minute before it failed ends the streak: what failed it is new. Lost replicas never wait.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from msgspec import Struct

from easel_scheduler.decide.world import Identity, Replica

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
SERVED_WELL_S = 60.0


class Hold(Struct, frozen=True):
    """Replacements that have to wait."""

    slots: int
    until: datetime
    failures: int
    last: Replica


def hold(replicas: tuple[Replica, ...], identity: Identity, wanted: int, now: datetime) -> Hold | None:
    """How many replacements wait until when; None: nothing has to."""
    mine = [r for r in replicas if r.identity == identity]
    streak = _streak(mine, now)
    if not streak:
        return None
    newest_start = max(r.created_at for r in mine)
    # One that was made sooner than the shortest delay stands in for something else.
    unreplaced = [r for r in streak if newest_start < _ended(r) + timedelta(seconds=FIRST_DELAY_S)]
    if not unreplaced:
        return None
    rounds = math.ceil(len(streak) / max(1, wanted))
    delay_s = min(FIRST_DELAY_S * 2 ** min(rounds - 1, 20), LONGEST_DELAY_S)
    until = _ended(streak[0]) + timedelta(seconds=delay_s)
    if now >= until:
        return None
    return Hold(len(unreplaced), until, len(streak), streak[0])


def _streak(mine: list[Replica], now: datetime) -> list[Replica]:
    """Failures without a well-serving replica between them, newest first."""
    served = [r for r in mine if r.ready_at is not None and _served_s(r, now) >= SERVED_WELL_S]
    since = max((r.ready_at for r in served if r.ready_at is not None), default=None)
    failed = sorted((r for r in mine if r.state == "failed"), key=_ended, reverse=True)
    return [r for r in failed if since is None or r.created_at > since]


def _served_s(r: Replica, now: datetime) -> float:
    assert r.ready_at is not None
    return ((r.ended_at or now) - r.ready_at).total_seconds()


def _ended(r: Replica) -> datetime:
    return r.ended_at or r.state_at
