"""How a rollout goes on: wave by wave while replicas of the new revision serve, paused where they fail, taken back.

As Kubernetes' Deployments (progress deadline) with Argo's steps: a wave lets a share of the replicas wanted be of the
new revision; it is done when they serve, and have for `wave_pause_s`. The scheduler turns the share into replicas.

- rolling, and as many replicas of the new revision failed as `stop_after` says → paused (RevisionFailing)
- rolling, and none more of them served for `progress_timeout_s` → paused (NoProgress); the clock stands still while no
  replica is wanted, or none finds room: neither is the revision's fault
- rolling, the wave done → the next one that adds a replica; after the last, with nothing older left → finished
- paused by a failure, and `on_failure` is revert → taken back after `revert_after_s`; paused by somebody → waits
- while requests are split for a canary, only failures and clocks are kept here: how far it goes is the canary's

One call decides one step, from its arguments alone; where nothing is to be done it gives None.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.facts import ReplicaState
from easel_contracts.spec import RevisionSpec, RolloutPolicy
from easel_control.decide.view import NO_ROOM, View, has_fallen, is_stuck
from easel_control.model import RolloutRow

NEVER_FITS = "TooLarge"
"""The one lack of room that is the revision's fault."""


class Scene(Struct, frozen=True, kw_only=True):
    """What a rollout's next step depends on."""

    now: datetime
    wanted: int
    serving: int
    """Replicas of the new revision that serve."""
    older: int
    """Living replicas of other revisions that are not being drained."""
    failing: tuple[ReplicaState, ...] = ()
    """Replicas of the new revision that failed, cannot come up, or came up and fell."""
    no_room: bool = False
    """One of the new revision waits for room."""


class Move(Struct, frozen=True, kw_only=True):
    """A step of a rollout."""

    kind: Literal["note", "wave", "pause", "finish", "revert"]
    """note: only what is remembered changes."""
    rollout: RolloutRow | None
    """After it; None: the rollout is over."""
    reason: str = ""
    message: str = ""


def scene_of(view: View, now: datetime) -> Scene:
    """The part of a service's view that a rollout depends on."""
    living = (r for r in view.coming if is_stuck(r) or has_fallen(r) or r.cause == NEVER_FITS)
    return Scene(
        now=now,
        wanted=view.total,
        serving=len(view.serving),
        older=len(view.older),
        failing=(*view.failed, *living),
        no_room=any(r.cause in NO_ROOM - {NEVER_FITS} for r in view.coming),
    )


def begun(stable: RevisionSpec, policy: RolloutPolicy, now: datetime, *, interrupt: bool,
          forgiven: tuple[str, ...] = ()) -> RolloutRow:  # fmt: skip
    """A rollout at its first wave."""
    return RolloutRow(
        stable=stable, share_percent=policy.waves[0], interrupt=interrupt, began_at=now, forgiven=forgiven
    )


def advance(rollout: RolloutRow, policy: RolloutPolicy, scene: Scene) -> Move | None:
    """The next step; None: nothing is to be done now."""
    if rollout.state == "paused":
        due = reverts_at(rollout, policy)
        if due is None or scene.now < due:
            return None
        return Move(kind="revert", rollout=None, reason=rollout.reason, message=rollout.message)
    counted = _counted(rollout, scene)
    if len(counted.failed) >= policy.stop_threshold(max(scene.wanted, 1)):
        return _failed(counted, scene)
    timed = _timed(counted, scene)
    need = wave_size(timed.share_percent, scene.wanted)
    if rollout.split is None and _is_over(scene, need):
        return Move(kind="finish", rollout=None, reason="RolledOut",
                    message=f"all {scene.serving} replicas are of the new revision")  # fmt: skip
    if timed.served_at is not None:
        due = timed.served_at + timedelta(seconds=policy.wave_pause_s)
        if rollout.split is None and need < scene.wanted and scene.now >= due:
            return _next_wave(timed, policy, scene)
    elif (due_at := _gives_up_at(timed, policy)) is not None and scene.now >= due_at:
        return _paused(timed, scene, "NoProgress", _stalled(policy, scene, need))
    return Move(kind="note", rollout=timed) if timed != rollout else None


def look_again_s(rollout: RolloutRow, policy: RolloutPolicy, scene: Scene) -> float | None:
    """Seconds until `advance` may decide otherwise though nothing happens; None: it will not."""
    if rollout.state == "paused":
        at = reverts_at(rollout, policy)
    elif rollout.served_at is None:
        at = _gives_up_at(rollout, policy)
    elif rollout.split is None and wave_size(rollout.share_percent, scene.wanted) < scene.wanted:
        at = rollout.served_at + timedelta(seconds=policy.wave_pause_s)
    else:
        at = None
    return None if at is None else max((at - scene.now).total_seconds(), 0.0)


def wave_size(share_percent: int, wanted: int) -> int:
    """Replicas of a wave: the share of those wanted, rounded up."""
    return -(-share_percent * wanted // 100)


def wave_number(share_percent: int, policy: RolloutPolicy) -> int:
    """Which of the policy's waves a share belongs to, from 1; the policy may have changed since it began."""
    return min(sum(wave < share_percent for wave in policy.waves) + 1, len(policy.waves))


def reverts_at(rollout: RolloutRow, policy: RolloutPolicy) -> datetime | None:
    """When a paused rollout is taken back; None: not by itself."""
    if rollout.state != "paused" or rollout.paused_at is None or rollout.reason == "PausedByUser":
        return None
    if rollout.split is not None:
        return None  # what follows is the canary's to decide
    return rollout.paused_at + timedelta(seconds=policy.revert_after_s) if policy.on_failure == "revert" else None


def paused_by_user(rollout: RolloutRow, actor: str, now: datetime) -> RolloutRow | None:
    """Paused until resumed; one that had failed no longer reverts by itself. None: it is so already."""
    if rollout.reason == "PausedByUser":
        return None
    said = f"; before: {rollout.message}" if rollout.message else ""
    return replace(
        rollout, state="paused", paused_at=now, reason="PausedByUser", cause="", message=f"{actor} paused it{said}"
    )  # fmt: skip


def resumed(rollout: RolloutRow, failing: tuple[str, ...]) -> RolloutRow | None:
    """Rolling again, failures so far forgiven; None: it rolls already. `failing`: replicas that have failed by now."""
    if rollout.state == "rolling":
        return None
    forgiven = tuple(sorted({*rollout.forgiven, *rollout.failed, *failing}))
    return replace(
        rollout, state="rolling", paused_at=None, reason="", message="", cause="", failed=(), forgiven=forgiven,
        progress_at=None, most_serving=0, served_at=None,
    )  # fmt: skip


def _counted(rollout: RolloutRow, scene: Scene) -> RolloutRow:
    """With the failures that are new. One that was counted stays counted, also when the replica came up at last."""
    new = {r.id for r in scene.failing} - {*rollout.failed, *rollout.forgiven}
    return replace(rollout, failed=(*rollout.failed, *sorted(new))) if new else rollout


def _timed(rollout: RolloutRow, scene: Scene) -> RolloutRow:
    """With its two clocks set: since when the wave serves, and when it last came on."""
    up = 0 < wave_size(rollout.share_percent, scene.wanted) <= scene.serving
    whole = up and scene.serving >= scene.wanted and rollout.split is None
    took_over = whole or (rollout.took_over and not scene.older)  # what a canary tries has not taken over
    if up:
        served_at = rollout.served_at or scene.now
        return replace(rollout, served_at=served_at, progress_at=None, most_serving=0, took_over=took_over)
    if not scene.wanted or scene.no_room:
        return replace(rollout, served_at=None, progress_at=None, most_serving=0, took_over=took_over)
    if rollout.progress_at is None or scene.serving > rollout.most_serving:
        rollout = replace(rollout, progress_at=scene.now, most_serving=scene.serving)
    return replace(rollout, served_at=None, took_over=took_over)


def _is_over(scene: Scene, need: int) -> bool:
    """Nothing older is left and all serve that can: those that find no room would not with the stable revision."""
    if scene.older or not scene.serving or not scene.wanted:
        return False
    return scene.serving >= scene.wanted or (scene.no_room and need >= scene.wanted)


def _next_wave(rollout: RolloutRow, policy: RolloutPolicy, scene: Scene) -> Move:
    """The next wave that lets more replicas be of the new revision."""
    now_may = wave_size(rollout.share_percent, scene.wanted)
    later = (w for w in policy.waves if w > rollout.share_percent and wave_size(w, scene.wanted) > now_may)
    share = next(later, 100)
    after = replace(rollout, share_percent=share, served_at=None, progress_at=scene.now, most_serving=scene.serving)
    may = wave_size(share, scene.wanted)
    message = f"{now_may} serve; {may} of {scene.wanted} replicas may now be of the new revision"
    return Move(kind="wave", rollout=after, reason="WaveBegan", message=message)


def _gives_up_at(rollout: RolloutRow, policy: RolloutPolicy) -> datetime | None:
    if rollout.progress_at is None:
        return None
    return rollout.progress_at + timedelta(seconds=policy.progress_timeout_s)


def _paused(rollout: RolloutRow, scene: Scene, reason: str, message: str, cause: str = "") -> Move:
    after = replace(rollout, state="paused", paused_at=scene.now, reason=reason, message=message, cause=cause)
    return Move(kind="pause", rollout=after, reason=reason, message=message)


def _failed(rollout: RolloutRow, scene: Scene) -> Move:
    """Paused, with how many failed and the newest one's own words."""
    count = len(rollout.failed)
    said = f"{count} replica{'s' if count > 1 else ''} of the new revision failed"
    newest = next((r for r in scene.failing if r.id in rollout.failed), None)
    if newest is None:
        return _paused(rollout, scene, "RevisionFailing", said)
    words = f"{said}; {newest.id}: {newest.message or newest.cause}"
    return _paused(rollout, scene, "RevisionFailing", words, newest.cause)


def _stalled(policy: RolloutPolicy, scene: Scene, need: int) -> str:
    limit_s = policy.progress_timeout_s
    return f"{scene.serving} of {need} replicas of the wave serve, and for {limit_s:g} s no other came up"
