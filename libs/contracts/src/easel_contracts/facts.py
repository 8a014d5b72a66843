"""Facts: what happened, told to everyone. Past tense, frozen, no secrets; readers ignore unknown fields.

A fact carries its entity's whole public state in `data`, so the newest fact of a key is enough to know it.
`row_version` rises with every write of the entity; a reader drops what is not newer. `epoch` stands before it:
it is raised when state is restored from a backup.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from easel_contracts.ids import fact_subject
from easel_contracts.spec import (
    Autoscaling,
    GatewayPolicy,
    Mirroring,
    RevisionSpec,
    RolloutPolicy,
    Runtime,
    Split,
)

SCHEMA_VERSION = 1

Entity = Literal["service", "replica", "node", "scale", "route", "traffic", "key", "group"]

VERBS: dict[Entity, tuple[str, ...]] = {
    "service": ("created", "updated", "scaled", "stopped", "started", "restarted", "rollout_changed", "status_changed",
                "expiry_warned", "deleted"),
    "replica": ("pending", "placed", "fetching", "starting", "ready", "unready", "draining", "stopped", "failed",
                "lost"),
    "node": ("ready", "not_ready", "lost"),
    "scale": ("decided",),
    "route": ("applied", "refused", "removed"),
    "traffic": ("drained",),
    "key": ("created", "revoked"),
    "group": ("created", "updated", "deleted"),
}  # fmt: skip
"""Every fact there is: entity → verbs. The AsyncAPI document is generated from this table."""


class Cause(Struct, frozen=True, kw_only=True):
    """Why a fact came to be."""

    actor: str
    """Access key id, or the process that decided."""
    reason: str
    """A constant such as `ReplicaReady`."""
    message: str = ""
    """A sentence."""
    traceparent: str | None = None
    """W3C trace context of what led here."""


class Fact(Struct, frozen=True, kw_only=True):
    """The envelope of every fact."""

    id: str
    """UUIDv7; also the Nats-Msg-Id."""
    entity: Entity
    verb: str
    workspace: str
    key: str
    """Service name for service, replica, route, traffic, scale; node id for node; key id for key."""
    epoch: int
    generation: int
    row_version: int
    at: datetime
    cause: Cause
    data: msgspec.Raw
    """The entity's public state: one of the structs below, msgpack."""
    schema_version: int = SCHEMA_VERSION

    @property
    def type(self) -> str:
        """E.g. `replica.ready`."""
        return f"{self.entity}.{self.verb}"

    @property
    def subject(self) -> str:
        """Where it is published."""
        return fact_subject(self.workspace, self.entity, self.key, self.verb)


class Rollout(Struct, frozen=True, kw_only=True):
    """One revision taking the place of another. Control decides the share, the scheduler turns it into replicas."""

    stable: RevisionSpec
    """What serves until the new revision does: its replicas are kept, and made anew where they fail."""
    share_percent: int
    """Of the replicas wanted, how many may be of ServiceState.revision now, rounded up."""
    state: Literal["rolling", "paused"] = "rolling"
    """paused: no replica of the new revision is made and none of the stable one is drained."""
    interrupt: bool = False
    """Asked for: with no room beside the old replicas, one at a time may make room for its successor."""
    split: Split | None = None
    """While a canary is on: how requests are shared between the two. None: by replicas, whichever they are of."""
    keep_stable: bool = False
    """As many replicas of the stable revision are kept as are wanted, whatever the share: the way back is one route
    change."""


class ServiceState(Struct, frozen=True, kw_only=True):
    """A service as control wants it. Written by control alone."""

    uid: str
    name: str
    generation: int
    wanted: Literal["running", "stopped", "deleted"]
    instance: int
    """Replicas asked for where no autoscaler decides."""
    revision: RevisionSpec
    autoscaling: Autoscaling | None = None
    autoscaling_generation: int = 0
    """Generation in which the autoscaler section was last changed."""
    instance_generation: int = 0
    """Generation in which `instance` was last changed."""
    token_version: int = 1
    """Raised whenever one of its tokens comes, changes or goes."""
    rolling: RolloutPolicy = RolloutPolicy()
    rollout: Rollout | None = None
    """None: every replica shall be of `revision`."""
    withdrew: bool = False
    """A canary was taken back: replicas of others than `revision` get no request while one of it takes any."""
    gateway: GatewayPolicy = GatewayPolicy()
    mirroring: Mirroring | None = None
    group: str = ""
    """Group it belongs to; empty: none."""
    safety_lock: Literal["none", "dangerous", "all"] = "none"
    """all: no replica may be changed by hand either."""
    status: str = "Creating"
    reason: str = ""
    message: str = ""
    created_at: datetime | None = None


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a replica listens."""

    network: str
    ip: str
    port: int


class ReplicaState(Struct, frozen=True, kw_only=True):
    """A replica as the scheduler knows it."""

    id: str
    service: str
    revision: int
    generation: int
    state: str
    """See states.REPLICA."""
    node: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    pid: int | None = None
    restarts: int = 0
    cause: str = ""
    """A constant: Exited OutOfMemory CrashLoop ProbeFailed MountFailed RequirementsFailed NoCapacity ..."""
    message: str = ""
    exit_code: int | None = None
    phase_s: dict[str, float] = {}
    restart_nonce: int = 0
    """RevisionSpec.restart_nonce of what it runs: with `revision`, what makes two replicas interchangeable."""
    out_of_traffic: Literal["", "isolated", "restarting"] = ""
    """Alive, but no new request may reach it: taken out by a user, or for the restart of its process."""
    drain_number: int = 0
    """Raised each time it is taken out of traffic (draining, isolated, restarting)."""
    keep_alive_s: float | None = None
    """How long its server keeps an idle connection, where that was found to be too short for the gateway."""
    grpc: bool = False
    """Its revision takes gRPC calls."""
    runtime: Runtime = "process"
    pins: dict[str, str] = {}
    """What it runs: path of a source in the service.json → digest or commit, once that is known."""
    row_version: int = 0
    """Facts of several replicas share a service's key: readers guard by (id, row_version) of the replica."""


class NodeState(Struct, frozen=True, kw_only=True):
    """A node as the scheduler knows it."""

    id: str
    state: Literal["ready", "not_ready", "lost"]
    address: str
    network: str
    cpu: float
    memory_mib: int
    isolation: str
    limits: str
    can_mount: bool
    gpu: int = 0
    runtimes: tuple[Runtime, ...] = ("process",)
    capacity: str = ""
    """`accounted` (what replicas of several nodes share is only counted) or how it is enforced; empty: not said."""


class ScaleInput(Struct, frozen=True, kw_only=True):
    """What one target saw when a decision was made."""

    metric: str
    threshold: float
    current: float | None
    """Mean per replica over the window; None: no metrics, which is not zero."""
    wants: int | None


class ScaleState(Struct, frozen=True, kw_only=True):
    """How many replicas a service should have. Written by the autoscaler alone."""

    service: str
    generation: int
    """The service's generation the decision was made for."""
    number: int
    """Rises with each decision; the scheduler obeys the highest (generation, number)."""
    before: int
    wanted: int
    reason: str
    message: str
    inputs: tuple[ScaleInput, ...] = ()


class RouteState(Struct, frozen=True, kw_only=True):
    """What every live Envoy does with a service's path."""

    service: str
    generation: int
    state: Literal["built", "sent", "acknowledged", "probed", "refused", "removed"]
    version: str
    replicas: tuple[str, ...]
    """Ids of the replicas that take traffic."""
    draining: tuple[str, ...] = ()
    token_version: int = 0
    holding: bool = False
    """No replica takes traffic: requests wait at the gateway until one does."""
    envoys: int = 0
    refused_reason: str = ""
    apply_ms: float = 0.0
    """From the router's decision to acknowledged and probed."""
    split_permille: int | None = None
    """Weight of the candidate that is live everywhere; None: requests are not split. 0 also where the candidate has no
    replica in traffic."""


class GroupMember(Struct, frozen=True, kw_only=True):
    """A service of a group."""

    service: str
    state: Literal["grouping", "standalone"] = "standalone"
    """standalone: reached at its own endpoints only. New members are."""
    weight: int = -1
    """Of a `customized` group: 0 to 1000 beside the others' weights; -1: the share that its replicas in traffic are of
    all that take part, before the others' weights count."""


class GroupState(Struct, frozen=True, kw_only=True):
    """Services under one endpoint. Written by control alone."""

    uid: str
    name: str
    generation: int
    mode: Literal["auto", "customized"] = "auto"
    """auto: members take part by their replicas in traffic; customized: by their weights."""
    members: tuple[GroupMember, ...] = ()
    """Sorted by service."""
    token_version: int = 1
    gateway: GatewayPolicy = GatewayPolicy()
    split: Split | None = None
    """While a canary between members is on: the candidate's share; the others share the rest as ever."""
    candidate: str = ""
    """The member that is the candidate."""
    created_at: datetime | None = None


class TrafficState(Struct, frozen=True, kw_only=True):
    """A replica has no request left."""

    service: str
    replica: str
    in_flight: int = 0
    drain_number: int = 0
    """The replica's ReplicaState.drain_number of which this speaks."""


class KeyState(Struct, frozen=True, kw_only=True):
    """An access key, as a hash: enough to verify, not to use."""

    id: str
    sha256: str
    """Hex digest of the 256-bit random key."""
    revoked: bool = False


EntityState = ServiceState | ReplicaState | NodeState | ScaleState | RouteState | TrafficState | KeyState | GroupState

STATE_OF: dict[Entity, type[EntityState]] = {
    "service": ServiceState,
    "replica": ReplicaState,
    "node": NodeState,
    "scale": ScaleState,
    "route": RouteState,
    "traffic": TrafficState,
    "key": KeyState,
    "group": GroupState,
}

T = TypeVar("T", bound=EntityState)

_fact_decoder = msgspec.msgpack.Decoder(Fact)
_data_decoders: dict[type[Struct], msgspec.msgpack.Decoder[EntityState]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in STATE_OF.values()
}
_encoder = msgspec.msgpack.Encoder()


def encode(fact: Fact) -> bytes:
    """The fact as it travels."""
    return _encoder.encode(fact)


def decode(payload: bytes) -> Fact:
    """The envelope; raises msgspec.DecodeError or ValidationError."""
    return _fact_decoder.decode(payload)


def raw(state: EntityState) -> msgspec.Raw:
    """A state as a fact's `data`."""
    return msgspec.Raw(_encoder.encode(state))


def state_of(fact: Fact, kind: type[T]) -> T:
    """The fact's data as `kind`; raises msgspec.ValidationError where it is something else."""
    found = _data_decoders[kind].decode(fact.data)
    assert isinstance(found, kind)
    return found
