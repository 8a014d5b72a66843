"""Control's rows as frozen values. No I/O; secrets appear only sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from easel_contracts.facts import GroupMember, GroupState, Rollout, ServiceState
from easel_contracts.spec import Autoscaling, GatewayPolicy, Mirroring, RevisionSpec, RolloutPolicy, Split

Wanted = Literal["running", "stopped", "deleted"]
Lock = Literal["none", "dangerous", "all"]


class RolloutRow(Struct, frozen=True, kw_only=True):
    """A rollout that is on: ServiceRow.revision takes the place of `stable`. See decide/rollout.py."""

    stable: RevisionSpec
    share_percent: int
    state: Literal["rolling", "paused"] = "rolling"
    interrupt: bool = False
    split: Split | None = None
    """While a canary is on: it decides how far the rollout goes (decide/canary_steps.py), and whether it is taken
    back."""
    keep_stable: bool = False
    """The stable revision stays whole until the canary is over."""
    canary: str = ""
    """What the canary is at, in words."""
    began_at: datetime
    progress_at: datetime | None = None
    """When one more replica of the new revision served, or the wave began; None while there is nothing to wait for:
    no replica is wanted, or there is no room for one."""
    most_serving: int = 0
    """Most replicas of the new revision that served in this wave."""
    served_at: datetime | None = None
    """Since when all replicas of the wave serve."""
    took_over: bool = False
    """Every replica wanted is of the new revision and serves: it is what a further update has to spare."""
    failed: tuple[str, ...] = ()
    """Replicas of the new revision that failed since the rollout began or was resumed."""
    forgiven: tuple[str, ...] = ()
    """Replicas of it whose failure does not count: they failed before."""
    paused_at: datetime | None = None
    reason: str = ""
    """Why it is paused, as a constant: RevisionFailing, NoProgress or PausedByUser."""
    message: str = ""
    cause: str = ""
    """Cause of the replica that failed last."""


class Reverted(Struct, frozen=True, kw_only=True):
    """A rollout that was taken back, as long as nothing newer is rolled out."""

    number: int
    """The revision that was given up; the present one where a restart was."""
    reason: str
    message: str
    at: datetime
    canary: bool = False
    """Requests were split for it: what was given up is out of traffic, and stays so until it is drained."""


class ServiceRow(Struct, frozen=True, kw_only=True):
    """A service as control holds it."""

    workspace: str
    name: str
    uid: str
    row_version: int
    generation: int
    observed_generation: int = 0
    wanted: Wanted = "running"
    instance: int
    instance_generation: int
    revision: RevisionSpec
    first_generation: int = 0
    """Generation of its creation: replicas of an earlier service of this name are older. 0: not known."""
    revision_generation: int
    """Generation in which the present revision, or its last restart, was asked for."""
    rollout: RolloutRow | None = None
    reverted: Reverted | None = None
    proven: bool = False
    """A replica of the revision (while a rollout is on: of its stable one) has served; only such a one is kept while
    another comes up."""
    latest_revision: int = 0
    """The highest number there has been; 0: written before there were switches, so it is the present one's."""
    nonces: int = 0
    """Restart nonces given out: each is used once, so that replicas of a restart that was taken back never count."""
    lock: Lock = "none"
    autoscaling: Autoscaling | None = None
    autoscaling_generation: int = 0
    rolling: RolloutPolicy = RolloutPolicy()
    gateway: GatewayPolicy = GatewayPolicy()
    mirroring: Mirroring | None = None
    """Who gets copies of its requests; None: nobody."""
    group: str = ""
    """Group it belongs to; empty: none. What it does there is in the group's row."""
    token_sealed: bytes
    """Of the token `default`; further ones are in the table `tokens`."""
    token_version: int = 1
    token_changed_at: datetime | None = None
    """When the token `default` got its value; None: at creation, or before that was kept."""
    config_sealed: bytes
    """The admitted configuration without token, with all other secrets, as JSON."""
    config_shown: str
    """The same without any secret."""
    labels: dict[str, str] = {}
    workspace_id: str = ""
    status: str = "Creating"
    reason: str = ""
    message: str = ""
    total: int = 0
    """Replicas wanted, whoever decided it, when the status was last written."""
    running: int = 0
    """Of these, ready and reachable through the gateway."""
    settled: int = 0
    """`total` when the service was last complete; 0: not since it was started."""
    phase_s: dict[str, float] = {}
    begun_at: datetime
    """When the present revision, start or restart was asked for."""
    not_running_since: datetime | None = None
    """Since when no request would have succeeded; None: one would."""
    expiry_warned: int = 0
    """Days of the last warning that the service will be deleted; 0: none was given."""
    changed_at: datetime | None = None
    """When somebody last changed it; None: at creation, or before that was kept."""
    created_at: datetime
    updated_at: datetime

    @property
    def latest(self) -> int:
        """The highest revision number there has been."""
        return max(self.latest_revision, self.revision.number)


class GroupRow(Struct, frozen=True, kw_only=True):
    """A group as control holds it. Which services are its members, they say (ServiceRow.group)."""

    workspace: str
    name: str
    uid: str
    row_version: int
    generation: int
    mode: Literal["auto", "customized"] = "auto"
    members: tuple[GroupMember, ...]
    """Sorted by service; empty only in the last fact."""
    split: Split | None = None
    """While a canary between members is on (decide/canary_group.py)."""
    candidate: str = ""
    """The member that it is about."""
    gateway: GatewayPolicy = GatewayPolicy()
    token_sealed: bytes
    """Of the token `default`; further ones are in the table `tokens`."""
    token_version: int = 1
    token_changed_at: datetime | None = None
    """When the token `default` got its value; None: at creation."""
    created_at: datetime
    updated_at: datetime


class RevisionRow(Struct, frozen=True, kw_only=True):
    """An immutable revision."""

    workspace: str
    name: str
    number: int
    state: str
    spec: RevisionSpec
    config_shown: str
    env_sealed: bytes
    """Its secrets: see environment.py."""
    created_at: datetime


def service_state(row: ServiceRow) -> ServiceState:
    """What a fact says of the service: no secret in it."""
    rollout = None
    if (r := row.rollout) is not None:
        rollout = Rollout(stable=r.stable, share_percent=r.share_percent, state=r.state, interrupt=r.interrupt,
                          split=r.split, keep_stable=r.keep_stable)  # fmt: skip
    return ServiceState(
        uid=row.uid, name=row.name, generation=row.generation, wanted=row.wanted, instance=row.instance,
        revision=row.revision, autoscaling=row.autoscaling, autoscaling_generation=row.autoscaling_generation,
        instance_generation=row.instance_generation, token_version=row.token_version, rolling=row.rolling,
        safety_lock=row.lock, rollout=rollout, withdrew=bool(row.reverted and row.reverted.canary),
        status=row.status, reason=row.reason, message=row.message,
        gateway=row.gateway, mirroring=row.mirroring, group=row.group, created_at=row.created_at,
    )  # fmt: skip


def group_state(row: GroupRow) -> GroupState:
    """What a fact says of the group: no secret in it."""
    return GroupState(
        uid=row.uid, name=row.name, generation=row.generation, mode=row.mode, members=row.members,
        token_version=row.token_version, gateway=row.gateway, split=row.split, candidate=row.candidate,
        created_at=row.created_at,
    )  # fmt: skip
