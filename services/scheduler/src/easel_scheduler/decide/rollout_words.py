"""Where a rollout stands, in counts, for people."""

from __future__ import annotations

from easel_scheduler.decide.parts import Limits, Parts
from easel_scheduler.decide.world import Reason


def rollout_words(p: Parts, m: Limits) -> Reason | None:
    """Which revision has how many replicas, and what the rules allow; None: no rollout is on."""
    if m.stable is None:
        return None
    new, old = m.spec, m.stable
    counts = (
        f"{_named(new.number, new.restart_nonce)} takes the place of {_named(old.number, old.restart_nonce)}: "
        f"{m.target} of the {m.wanted} wanted may be of it now; {len(p.target)} are, {p.serving(p.target)} of them in "
        f"traffic; {len(p.stable)} are of the one before, {p.serving(p.stable)} of them in traffic"
    )
    if p.leftover:
        counts += f"; {len(p.leftover)} of a revision that was given up serve until they are replaced"
    if m.kept:
        counts += f"; {m.kept} of that are kept for the requests that go to it"
    if m.paused:
        return Reason("RolloutPaused", f"{counts}. It is paused: none is made of the new revision and none drained for "
                      "it")  # fmt: skip
    missing = f"{m.unavailable} may be missing"
    if m.interrupt:
        missing += ", and one where nothing fits beside them"
    return Reason("Rollout", f"{counts}. At most {m.wanted + m.surge} at a time, and {missing}")


def _named(number: int, nonce: int) -> str:
    return f"revision {number}" + (f" (restart {nonce})" if nonce else "")
