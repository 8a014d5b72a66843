"""What a mutation makes of a service's row: the new row, the fact's verb, and the sentence for it. Pure.

`ServiceRow` in, `Change` out; a mutation that changes nothing gives None. Errors are EaselErrors.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import Conflict, InvalidInput
from easel_contracts.spec import Autoscaling, GatewayPolicy, RevisionSpec, RolloutPolicy
from easel_control.decide.keys import BY_PATH
from easel_control.decide.mutation import Change, moved, raised, refuse_deleting
from easel_control.decide.pins import with_found
from easel_control.decide.releases import interrupting, released
from easel_control.model import Lock, ServiceRow


class Content(Struct, frozen=True, kw_only=True):
    """What an admitted configuration asks for, sealed where it is secret."""

    revision: RevisionSpec
    """Number 0."""
    instance: int
    autoscaling: Autoscaling | None
    rolling: RolloutPolicy
    token_sealed: bytes | None
    """None: unchanged."""
    secrets_changed: bool
    """Of the environments and git repositories, which belong to the revision."""
    config_sealed: bytes
    config_shown: str
    config_changed: bool
    labels: dict[str, str]
    workspace_id: str
    gateway: GatewayPolicy = GatewayPolicy()
    group: str = ""


def created(content: Content, *, workspace: str, name: str, uid: str, past: tuple[int, int], now: datetime) -> Change:
    """A new service. `past`: where (generation, row_version) of an earlier one of this name ended."""
    assert content.token_sealed is not None
    generation = past[0] + 1
    row = ServiceRow(
        workspace=workspace, name=name, uid=uid, row_version=past[1] + 1, generation=generation,
        observed_generation=generation, instance=content.instance, instance_generation=generation,
        revision=replace(content.revision, number=1), first_generation=generation,
        revision_generation=generation, autoscaling=content.autoscaling,
        autoscaling_generation=generation if content.autoscaling else 0, rolling=content.rolling,
        gateway=content.gateway, group=content.group, token_sealed=content.token_sealed,
        config_sealed=content.config_sealed, config_shown=content.config_shown, labels=content.labels,
        workspace_id=content.workspace_id, latest_revision=1, status="Creating", reason="Admitted",
        message="admitted; replicas are being placed", total=content.instance, begun_at=now,
        not_running_since=now, created_at=now, updated_at=now,
    )  # fmt: skip
    return Change(row=row, verb="created", reason="Created", message="revision 1 was admitted", new_revision=True)


def updated(
    before: ServiceRow, content: Content, newest_revision: int, now: datetime, *, interrupt: bool = False
) -> Change | None:
    """The service with a new configuration: a scale, a new revision, both, or only settings.

    `interrupt`: a rollout may make room by ending old replicas first; also one that is on already.
    """
    refuse_deleting(before)
    new_revision = content.secrets_changed or not _runs_the_same(content.revision, before.revision)
    instance_changed = content.instance != before.instance
    scaling_changed = content.autoscaling != before.autoscaling
    token_changed = content.token_sealed is not None
    if not (new_revision or instance_changed or scaling_changed or token_changed or content.config_changed):
        return interrupting(before, now) if interrupt else None
    only_instance = instance_changed and not (new_revision or scaling_changed or token_changed)
    if only_instance and before.autoscaling is not None:
        _refuse_scale_under_autoscaler(before)
    row = replace(
        raised(before, now),
        instance=content.instance, autoscaling=content.autoscaling, rolling=content.rolling,
        config_sealed=content.config_sealed, config_shown=content.config_shown, labels=content.labels,
        workspace_id=content.workspace_id, gateway=content.gateway, group=content.group,
    )  # fmt: skip
    if token_changed:
        row = replace(
            row, token_sealed=content.token_sealed, token_version=before.token_version + 1, token_changed_at=now
        )
    if instance_changed:
        row = replace(row, instance_generation=row.generation)
    if scaling_changed:
        row = replace(row, autoscaling_generation=row.generation)
    if new_revision:
        return _with_revision(row, content.revision, newest_revision + 1, now, interrupt=interrupt)
    if only_instance:
        return _scaled(row, before.instance)
    return Change(row=row, verb="updated", reason="Updated", message="settings were changed; the revision stays")


def _runs_the_same(asked: RevisionSpec, present: RevisionSpec) -> bool:
    """What the present revision's replicas have found out about its sources makes no other one."""
    sources = with_found(asked.sources, present.sources)
    return replace(asked, number=present.number, restart_nonce=present.restart_nonce, sources=sources) == present


def _with_revision(row: ServiceRow, spec: RevisionSpec, number: int, now: datetime, *, interrupt: bool) -> Change:
    message = f"revision {number} was admitted"
    row = released(row, replace(spec, number=number, restart_nonce=0), now, interrupt=interrupt)
    row = moved(row, "Updating", "RevisionAdmitted", message)
    return Change(row=row, verb="updated", reason="RevisionAdmitted", message=message, new_revision=True)


def scaled(before: ServiceRow, instance: int, now: datetime) -> Change | None:
    """The service with another number of replicas; no revision."""
    refuse_deleting(before)
    if before.autoscaling is not None:
        _refuse_scale_under_autoscaler(before)
    highest = BY_PATH["metadata.instance"].maximum
    assert highest is not None
    if not 1 <= instance <= highest:
        raise InvalidInput(
            f"instance {instance} is not allowed; 1 to {highest:g} is",
            hint=f"`easel stop {before.name}` is the way to no replica; with autoscaler.min 0 it goes there by itself"
            if instance == 0 else "",
        )  # fmt: skip
    if instance == before.instance:
        return None
    row = raised(before, now)
    return _scaled(replace(row, instance=instance, instance_generation=row.generation), before.instance)


def _scaled(row: ServiceRow, was: int) -> Change:
    message = f"{was} → {row.instance} replicas"
    if row.wanted == "running":
        row = replace(moved(row, "Scaling", "Scaled", message), total=row.instance)
    return Change(row=row, verb="scaled", reason="Scaled", message=message)


def _refuse_scale_under_autoscaler(row: ServiceRow) -> None:
    assert row.autoscaling is not None
    low, high = row.autoscaling.min, row.autoscaling.max
    raise Conflict(
        "AUTOSCALED",
        f"the autoscaler decides how many replicas {row.name} has, between {low} and {high}",
        f"change autoscaler.min and autoscaler.max (equal: a fixed number), or remove the section: "
        f'`easel modify {row.name}` with "autoscaler": null',
    )


def stopped(before: ServiceRow, now: datetime) -> Change | None:
    """The service without replicas; its configuration stays."""
    refuse_deleting(before)
    if before.wanted == "stopped":
        return None
    row = moved(replace(raised(before, now), wanted="stopped", settled=0), "Stopping", "Stopped", "is being stopped")
    return Change(row=row, verb="stopped", reason="Stopped", message="stop was asked for")


def started(before: ServiceRow, now: datetime) -> Change | None:
    """The service with its replicas again."""
    refuse_deleting(before)
    if before.wanted == "running":
        return None
    rollout = before.rollout and replace(before.rollout, progress_at=None, served_at=None, took_over=False)
    row = replace(raised(before, now), wanted="running", rollout=rollout, begun_at=now, phase_s={})
    row = moved(row, "Starting", "Started", "is being started")
    return Change(row=row, verb="started", reason="Started", message="start was asked for")


def deleted(before: ServiceRow, now: datetime, why: str = "delete was asked for") -> Change | None:
    """The service on its way out of its group, too; the row goes when replicas and route are gone."""
    if before.wanted == "deleted":
        return None
    row = replace(raised(before, now), wanted="deleted", settled=0, group="")
    row = moved(row, "Deleting", "Deleting", "is being deleted")
    return Change(row=row, verb="status_changed", reason="Deleting", message=why)


def locked(before: ServiceRow, lock: str, now: datetime) -> Change | None:
    """The service with another safety lock; raises InvalidInput."""
    refuse_deleting(before)
    if lock not in get_args(Lock):
        raise InvalidInput(f"lock {lock!r} is not allowed; none, dangerous or all is")
    if lock == before.lock:
        return None
    row = replace(raised(before, now), lock=cast("Lock", lock))
    return Change(row=row, verb="updated", reason="Locked", message=f"the safety lock is {lock}, was {before.lock}")
