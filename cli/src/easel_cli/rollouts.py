"""A rollout in words: what gives way to what, how far it is, and what it waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easel_sdk.types import Replica, Rollout


def sides(rollout: Rollout, replicas: Iterable[Replica]) -> tuple[list[Replica], list[Replica]]:
    """Its replicas, old and new.

    A restart goes from a revision to itself: what was made in the newest restart, and since it began, is new then.
    """
    found = list(replicas)
    newest = max((replica.restart_nonce for replica in found), default=0)
    restart = rollout.from_revision == rollout.to_revision
    old: list[Replica] = []
    new: list[Replica] = []
    for replica in found:
        is_new = replica.revision == rollout.to_revision
        if restart and is_new:
            since = replica.create_time.ToNanoseconds() >= rollout.began_time.ToNanoseconds()
            is_new = replica.restart_nonce == newest and since
        (new if is_new else old).append(replica)
    return old, new


def counted(replicas: Sequence[Replica]) -> dict[str, int]:
    """How many are in which state, ready ones first. Those taken out of traffic count as `isolated`."""
    counts = Counter("isolated" if replica.isolated else replica.status for replica in replicas)
    return dict(sorted(counts.items(), key=lambda entry: (entry[0] != "ready", entry[0])))


def shown(replicas: Sequence[Replica]) -> str:
    """E.g. `2 ready, 1 starting`, or `none`."""
    return ", ".join(f"{count} {state}" for state, count in counted(replicas).items()) or "none"


def change(rollout: Rollout) -> str:
    """E.g. `revision 3 → 4`."""
    if rollout.from_revision == rollout.to_revision:
        return f"restart of revision {rollout.to_revision}"
    return f"revision {rollout.from_revision} → {rollout.to_revision}"


def state(rollout: Rollout) -> str:
    """E.g. `paused at 50 %, 1 failed, reverts at 12:03:04`."""
    from easel_sdk.documents import to_datetime

    words = [f"{'paused at' if rollout.state == 'paused' else 'up to'} {rollout.share_percent} %"]
    if rollout.failed:
        words.append(f"{rollout.failed} failed")
    at = to_datetime(rollout.revert_time)
    if at is not None:
        words.append(f"reverts at {at.astimezone():%H:%M:%S}")
    return ", ".join(words)


def line(rollout: Rollout, replicas: Iterable[Replica]) -> str:
    """All of it in a line."""
    old, new = sides(rollout, replicas)
    words = [f"{change(rollout)}, {state(rollout)}", f"old: {shown(old)}", f"new: {shown(new)}"]
    said = message(rollout)
    return " · ".join([*words, *([said] if said else [])])


def message(rollout: Rollout) -> str:
    """What it waits for, without the counts that stand beside it."""
    from easel_sdk.waiting import without_counts

    return without_counts(rollout.message)
