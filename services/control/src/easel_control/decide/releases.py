"""Changes of what a service runs: a new revision, a restart, a switch to another revision, and the way back. Pure.

Where the revision before has served and the service runs, such a change begins a rollout with it as the stable one;
else every replica is of the new revision at once, for there is nothing to go back to.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_contracts.spec import RevisionSpec
from easel_control.decide import rollout as rollouts
from easel_control.decide.mutation import Change, moved, raised, refuse_deleting
from easel_control.decide.view import World, is_of
from easel_control.model import Reverted, RolloutRow, ServiceRow


class Laid(Struct, frozen=True, kw_only=True):
    """The configuration of a revision with what does not belong to one (instance, autoscaler, …) as it is now."""

    config_sealed: bytes
    config_shown: str


def base_of(row: ServiceRow) -> RevisionSpec | None:
    """What really serves, so that it is to be kept while something else comes up; None: nothing has served yet."""
    if row.wanted != "running":
        return None
    if row.rollout is not None and not row.rollout.took_over:
        return row.rollout.stable
    return row.revision if row.proven else None


def released(row: ServiceRow, target: RevisionSpec, now: datetime, *, interrupt: bool = False,
             forgiven: tuple[str, ...] = ()) -> ServiceRow:  # fmt: skip
    """The row, raised before, with another revision or restart as its present one. `forgiven`: replicas of it that
    failed before."""
    stable = base_of(row)
    rollout = None
    if stable is not None and _identity(stable) != _identity(target):
        rollout = rollouts.begun(stable, row.rolling, now, interrupt=interrupt, forgiven=forgiven)
    proven = stable is not None or (row.proven and _identity(row.revision) == _identity(target))
    return replace(
        row, revision=target, revision_generation=row.generation, rollout=rollout, reverted=None, proven=proven,
        latest_revision=max(row.latest, target.number), begun_at=now, phase_s={},
    )  # fmt: skip


def restarted(before: ServiceRow, now: datetime, *, interrupt: bool = False) -> Change:
    """The same revision with all replicas replaced, new ones first."""
    refuse_deleting(before)
    if before.wanted != "running":
        raise Conflict("STOPPED", f"{before.name} is stopped", f"`easel start {before.name}` starts it")
    row = raised(before, now)
    row, nonce = fresh_nonce(row)
    row = released(row, replace(row.revision, restart_nonce=nonce), now, interrupt=interrupt)
    row = moved(row, "Updating", "Restarted", "replicas are being replaced")
    return Change(row=row, verb="restarted", reason="Restarted", message="restart was asked for")


def switched(before: ServiceRow, spec: RevisionSpec, laid: Laid, world: World, now: datetime, *,
             interrupt: bool = False, warnings: tuple[str, ...] = ()) -> Change | None:  # fmt: skip
    """Another revision that there has been, with the restart of it whose replicas are up, or a new one."""
    refuse_deleting(before)
    if spec.number == before.revision.number:
        return interrupting(before, now) if interrupt else None
    if before.rollout is not None and spec.number == before.rollout.stable.number:
        message = f"a switch back to revision {spec.number} was asked for"
        return replace(taken_back(before, laid, "SwitchedBack", message, now), warnings=warnings)
    row = replace(raised(before, now), config_sealed=laid.config_sealed, config_shown=laid.config_shown)
    up = sorted((r for r in world.replicas if r.revision == spec.number and r.state != "draining"),
                key=lambda r: (r.state == "ready", r.restart_nonce))  # fmt: skip
    if up:
        nonce = up[-1].restart_nonce
    else:
        row, nonce = fresh_nonce(row)
    target = replace(spec, restart_nonce=nonce)
    forgiven = tuple(r.id for r in world.failed if is_of(target, r))
    row = released(row, target, now, interrupt=interrupt, forgiven=forgiven)
    message = f"revision {spec.number} takes the place of {before.revision.number}"
    row = moved(row, "Updating", "RevisionSwitched", message)
    return Change(row=row, verb="updated", reason="RevisionSwitched", message=message, warnings=warnings)


def needs_room(row: ServiceRow, number: int) -> bool:
    """Whether a switch to a revision makes replicas of it beside the others; false: it is present or stable now."""
    return number not in (row.revision.number, row.rollout.stable.number if row.rollout is not None else 0)


def taken_back(before: ServiceRow, laid: Laid, reason: str, why: str, now: datetime) -> Change:
    """The stable revision (and restart) is the present one again; replicas of the other are left to be drained."""
    refuse_deleting(before)
    if before.rollout is None:
        raise no_rollout(before)
    stable, given_up = before.rollout.stable, before.revision
    again = stable.number == given_up.number
    what = f"the restart of revision {given_up.number}" if again else f"revision {given_up.number}"
    message = f"{what} was given up{'' if again else f' for revision {stable.number}'}: {why}"
    row = raised(before, now)
    row = replace(
        row, revision=stable, revision_generation=row.generation, rollout=None, proven=True, begun_at=now, phase_s={},
        reverted=Reverted(
            number=given_up.number, reason=reason, message=message, at=now, canary=before.rollout.split is not None
        ),
        config_sealed=laid.config_sealed, config_shown=laid.config_shown, latest_revision=row.latest,
    )  # fmt: skip
    row = moved(row, "Updating", "RollingBack", message)
    return Change(row=row, verb="rollout_changed", reason="RolledBack", message=message,
                  given_up=0 if again else given_up.number)  # fmt: skip


def paused(before: ServiceRow, actor: str, now: datetime) -> Change | None:
    """The rollout stands still until it is resumed or reverted."""
    rollout = _on(before)
    after = rollouts.paused_by_user(rollout, actor, now)
    return None if after is None else _with(before, after, "RolloutPaused", f"{actor} paused the rollout", now)


def resumed(before: ServiceRow, failing: tuple[str, ...], actor: str, now: datetime) -> Change | None:
    """The rollout goes on; what failed before counts no more."""
    rollout = _on(before)
    after = rollouts.resumed(rollout, failing)
    return None if after is None else _with(before, after, "RollingOut", f"{actor} resumed the rollout", now)


def interrupting(before: ServiceRow, now: datetime) -> Change | None:
    """The rollout that is on may make room by ending old replicas first; None: it may already, or none is on."""
    if before.rollout is None or before.rollout.interrupt:
        return None
    after = replace(before.rollout, interrupt=True)
    return _with(before, after, "RollingOut", "old replicas may make room, one at a time", now)


def fresh_nonce(row: ServiceRow) -> tuple[ServiceRow, int]:
    """(the row, a restart nonce that no replica of the service ever had)."""
    nonce = max(row.nonces, row.revision.restart_nonce) + 1
    return replace(row, nonces=nonce), nonce


def no_rollout(row: ServiceRow) -> Conflict:
    """The error for who would change a rollout where none is on."""
    said = f"; {row.reverted.message}" if row.reverted is not None else ""
    hint = f"`easel revisions {row.name}` lists its revisions, `easel version {row.name} N` switches"
    return Conflict("NO_ROLLOUT", f"no rollout of {row.name} is on{said}", hint)


def _on(row: ServiceRow) -> RolloutRow:
    refuse_deleting(row)
    if row.rollout is None:
        raise no_rollout(row)
    return row.rollout


def _with(before: ServiceRow, rollout: RolloutRow, reason: str, message: str, now: datetime) -> Change:
    row = moved(replace(raised(before, now), rollout=rollout), "Updating", reason, message)
    return Change(row=row, verb="rollout_changed", reason=reason, message=message)


def _identity(spec: RevisionSpec) -> tuple[int, int]:
    return spec.number, spec.restart_nonce
