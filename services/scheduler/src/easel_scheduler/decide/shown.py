"""Which replicas people see first."""

from __future__ import annotations

from collections.abc import Sequence

from easel_scheduler.decide.world import Replica


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
