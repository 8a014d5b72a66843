"""What the scheduler's decisions are made of: replicas, nodes, snapshots and plans. Frozen data, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from msgspec import Struct

from easel_contracts.facts import Endpoint, RouteState, ScaleState, ServiceState
from easel_contracts.spec import Resources, RevisionSpec, Runtime
from easel_contracts.states import REPLICA, is_final

NAMED_HOLDERS = 3
"""Services named in a sentence about a full node."""


class Reason(Struct, frozen=True):
    """Why: a constant for programs, a sentence for people."""

    code: str
    message: str


class Identity(Struct, frozen=True):
    """What makes two replicas interchangeable."""

    service_uid: str
    revision: int
    restart_nonce: int


class Refusal(Struct, frozen=True, kw_only=True):
    """One node's first reason not to take a replica."""

    node: str
    filter: str
    """Name of the filter that refused: state, runtime, mounts, cpu, memory, gpu."""
    message: str


class Replica(Struct, frozen=True, kw_only=True):
    """A row of the scheduler's truth."""

    id: str
    workspace: str
    service: str
    service_uid: str
    generation: int
    spec: RevisionSpec
    state: str
    """See easel_contracts.states.REPLICA."""
    row_version: int = 1
    node: str | None = None
    run: str | None = None
    """agent_run_id of the agent's life in which it was started; None: no start is known to have arrived."""
    sequence: int = -1
    """Of the last report folded, within `run`."""
    endpoints: tuple[Endpoint, ...] = ()
    pid: int | None = None
    container: str = ""
    """Id of its main container; empty for a process."""
    restarts: int = 0
    restarts_before: int = 0
    """Of them, how many were in lives of its agent that ended; an agent that adopts it counts from zero."""
    cause: str = ""
    message: str = ""
    exit_code: int | None = None
    phase_s: dict[str, float] = {}
    log_tail: tuple[str, ...] = ()
    isolation: str = ""
    limits: str = ""
    placement: str = ""
    """Why it is on its node."""
    refusals: tuple[Refusal, ...] = ()
    """The nodes that did not take it when it was last tried."""
    traceparent: str | None = None
    created_at: datetime
    state_at: datetime
    """When `state` was entered."""
    placed_at: datetime | None = None
    ready_at: datetime | None = None
    """When it was ready for the first time; None: it never took traffic."""
    draining_at: datetime | None = None
    ended_at: datetime | None = None
    out_of_traffic: Literal["", "isolated", "restarting"] = ""
    """Alive, and no new request may reach it; see ReplicaState.out_of_traffic."""
    out_at: datetime | None = None
    """When `out_of_traffic` was entered."""
    drain_number: int = 0
    """Raised each time it is taken out of traffic; what the router tells of it names the number."""
    replacing: Literal["", "surge", "now"] = ""
    """Somebody asked for its replacement: after its successor serves, or at once."""
    restart_asked: int = 0
    """Number of the newest restart of its process in place that somebody asked for."""
    restart_done: int = 0
    """Number of the newest one that its agent carried out."""
    keep_alive_s: float | None = None
    """How long its server keeps an idle connection, where that is too short for the gateway."""
    pins: dict[str, str] = {}
    """What it runs: path of a source in the service.json → digest or commit, as its agent found it."""

    @property
    def runtime(self) -> Runtime:
        """What runs it on its node."""
        return self.spec.runtime

    @property
    def restarts_in_place(self) -> bool:
        """Its process is to be started anew, or is being started."""
        return self.restart_asked > self.restart_done

    @property
    def in_traffic(self) -> bool:
        """Requests may reach it as soon as the route names it."""
        return self.state == "ready" and not self.out_of_traffic

    @property
    def identity(self) -> Identity:
        """Replicas of the same identity are interchangeable."""
        return Identity(self.service_uid, self.spec.number, self.spec.restart_nonce)

    @property
    def live(self) -> bool:
        """Not in a final state."""
        return not is_final(REPLICA, self.state)


class Holder(Struct, frozen=True, kw_only=True):
    """What one service's live replicas reserve on a node."""

    service: str
    replicas: int
    cpu: float
    memory_mib: int
    gpu: int = 0


class NodeRuntime(Struct, frozen=True, kw_only=True):
    """What can run replicas on a node."""

    name: str
    """process, docker, or one that a newer agent knows."""
    why_not: str = ""
    """Why it cannot now; empty: it can."""
    version: str = ""


PROCESSES = (NodeRuntime(name="process"),)
"""Of an agent that does not say: it runs processes."""


class Node(Struct, frozen=True, kw_only=True):
    """A node with what its live replicas reserve."""

    id: str
    state: str
    """ready | not_ready | lost"""
    cpu: float
    """Cores that may be reserved."""
    memory_mib: int
    gpu: int = 0
    can_mount: bool = True
    can_mount_why_not: str = ""
    runtimes: tuple[NodeRuntime, ...] = PROCESSES
    capacity: str = ""
    """How what is reserved is kept to, in the agent's words; empty: not said."""
    cpu_reserved: float = 0.0
    memory_reserved_mib: int = 0
    gpu_reserved: int = 0
    of_service: int = 0
    """Live replicas of the service that is being placed."""
    holders: tuple[Holder, ...] = ()
    """Who reserves, by service; for the sentences only."""
    silent_s: float = 0.0
    """Since its agent was last heard."""

    def held_by(self, resource: Literal["cpu", "memory_mib", "gpu"]) -> str:
        """The services that reserve most of it, e.g. ` (ocr 4, filetype 2)`; empty where that is not known."""
        held = sorted(((getattr(h, resource), h.service) for h in self.holders), key=lambda x: (-x[0], x[1]))
        named = [f"{service} {amount:g}" for amount, service in held if amount > 0]
        more = [f"{len(named) - NAMED_HOLDERS} more"] if len(named) > NAMED_HOLDERS else []
        return f" ({', '.join(named[:NAMED_HOLDERS] + more)})" if named else ""


class Need(Struct, frozen=True):
    """What a replica asks of a node."""

    resources: Resources
    mounts: tuple[tuple[str, str | None], ...]
    """Of a process: (path in the replica, path on the node or None for what the agent fetches). An engine can always
    mount, so a container needs nothing of its node for it."""
    runtime: Runtime = "process"

    @classmethod
    def of(cls, spec: RevisionSpec) -> Need:
        """What one replica of this revision asks for."""
        mounts = spec.mounts if spec.runtime == "process" else ()
        return cls(spec.resources, tuple((m.mount_path, m.host_path) for m in mounts), spec.runtime)


class Snapshot(Struct, frozen=True, kw_only=True):
    """All that is known when a service is planned."""

    now: datetime
    service: ServiceState | None
    """None: control has not told yet; unknown is not deleted."""
    scale: ScaleState | None = None
    route: RouteState | None = None
    """The newest applied route."""
    replicas: tuple[Replica, ...] = ()
    """The service's own: all that live, and the newest that ended."""
    nodes: tuple[Node, ...] = ()
    in_flight: Mapping[str, int] | None = None
    """Replica → requests in flight at it; None: nobody was asked. One that is missing is not known."""


class Create(Struct, frozen=True):
    """Make a replica of `spec`; `node` None: it stays pending."""

    spec: RevisionSpec
    node: str | None
    why: Reason
    refusals: tuple[Refusal, ...] = ()


class Place(Struct, frozen=True):
    """Put a pending replica on a node."""

    replica: str
    node: str
    why: Reason
    refusals: tuple[Refusal, ...] = ()


class Drain(Struct, frozen=True):
    """Take a replica out of traffic, then stop it."""

    replica: str
    why: Reason


class TakeOut(Struct, frozen=True):
    """Take a replica out of traffic so that its process can be started anew."""

    replica: str
    why: Reason


class Stop(Struct, frozen=True):
    """End a replica that is on no node yet."""

    replica: str
    why: Reason


class Wait(Struct, frozen=True):
    """Nothing can be done now; `replica` None: it concerns the service."""

    replica: str | None
    why: Reason
    refusals: tuple[Refusal, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """Every change to one service's replicas, each with its reason."""

    create: tuple[Create, ...] = ()
    place: tuple[Place, ...] = ()
    drain: tuple[Drain, ...] = ()
    stop: tuple[Stop, ...] = ()
    take_out: tuple[TakeOut, ...] = ()
    wait: tuple[Wait, ...] = ()
    asks_in_flight: bool = False
    """Which of several equal replicas goes was decided without knowing how many requests each has in flight."""
    wake_after_s: float | None = None
    """When the plan would differ without anything else happening."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.create or self.place or self.drain or self.stop or self.take_out)
