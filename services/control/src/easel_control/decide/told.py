"""A rollout in sentences: where it stands, what it waits for, and what to do. For the status, the API and `explain`."""

from __future__ import annotations

from easel_control.decide.hints import hint_for
from easel_control.decide.rollout import reverts_at, wave_number, wave_size
from easel_control.decide.view import View
from easel_control.model import ServiceRow


def rollout_told(row: ServiceRow, view: View) -> str:
    """Which wave, how many of it serve, what serves meanwhile; why it is paused and what follows. Without hint."""
    rollout, policy = row.rollout, row.rolling
    assert rollout is not None
    share, waves = rollout.share_percent, len(policy.waves)
    may = wave_size(share, view.total)
    if rollout.split is not None:
        new, old = len(view.serving), len(view.older_serving)
        both = f"{new} of {may} replicas of {_target(row)} serve, {old} of {_stable(row)}"
        return f"{rollout.canary}; {both}{pause_told(row)}"
    what = (
        f"{_target(row)}, wave {wave_number(share, policy)} of {waves} ({share} %): {len(view.serving)} of {may} serve"
    )
    meanwhile = f", {len(view.older_serving)} of {_stable(row)} serve meanwhile" if view.older_serving else ""
    return f"{what}{meanwhile}{pause_told(row)}"


def pause_told(row: ServiceRow) -> str:
    """Why the rollout is paused and what follows, as the end of a sentence; empty: it is not."""
    rollout = row.rollout
    if rollout is None or rollout.state != "paused":
        return ""
    due = reverts_at(rollout, row.rolling)
    then = f"; it goes back to {_stable(row)} at {due:%Y-%m-%d %H:%M:%S} UTC unless somebody decides" if due else ""
    return f"; paused: {rollout.message}{then}"


def rolling_hint(row: ServiceRow, no_room: str = "") -> str:
    """What to do about a rollout that is paused, or (with the cause) finds no room; as the end of a message."""
    assert row.rollout is not None
    if no_room:
        return (
            " Hint: ask again with --allow-interruption (old replicas make room, one at a time), set "
            "metadata.rolling_strategy.max_unavailable to 1, or make room: " + hint_for(no_room, row.name)
        )
    name = row.name
    if row.rollout.split is not None:
        return f" Hint: `easel canary desc {name}` shows what it is judged by"
    decide = f"`easel rollout {name} resume` tries on, `easel rollout {name} revert` goes back at once"
    about = hint_for(row.rollout.cause, name)
    return f" Hint: {about}; {decide}" if about else f" Hint: {decide}"


def _target(row: ServiceRow) -> str:
    assert row.rollout is not None
    again = row.rollout.stable.number == row.revision.number
    return f"restart of revision {row.revision.number}" if again else f"revision {row.revision.number}"


def _stable(row: ServiceRow) -> str:
    assert row.rollout is not None
    again = row.rollout.stable.number == row.revision.number
    return "those from before the restart" if again else f"revision {row.rollout.stable.number}"
