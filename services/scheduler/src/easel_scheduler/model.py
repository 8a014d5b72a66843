"""Rows of the scheduler, and what they look like as facts and in the API."""

from __future__ import annotations

from datetime import datetime
from typing import get_args

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Struct

from easel_contracts.facts import NodeState, ReplicaState
from easel_contracts.spec import Runtime
from easel_proto.internal.v1 import agent_pb2
from easel_proto.v1 import nodes_pb2, replicas_pb2
from easel_scheduler.decide.shown import said
from easel_scheduler.decide.world import PROCESSES, Holder, Node, NodeRuntime, Replica


class NodeRow(Struct, frozen=True, kw_only=True):
    """A node as its agent describes it, with the state that its silence gives it."""

    id: str
    workspace: str
    state: str
    """ready | not_ready | lost"""
    row_version: int = 1
    agent_addr: str
    address: str
    network: str
    cpu: float
    memory_mib: int
    isolation: str
    limits: str
    can_mount: bool
    can_mount_why_not: str = ""
    agent_run_id: str
    last_seen_at: datetime
    gpu: int = 0
    runtimes: tuple[NodeRuntime, ...] = PROCESSES
    capacity: str = ""


def node_of(found: agent_pb2.NodeDescription, *, workspace: str, agent_addr: str, now: datetime) -> NodeRow:
    """A ready node, from what its agent says."""
    return NodeRow(
        id=found.node_id, workspace=workspace, state="ready", agent_addr=agent_addr, address=found.address,
        network=found.network, cpu=found.cpu, memory_mib=found.memory_mib, isolation=found.isolation,
        limits=found.limits, can_mount=found.can_mount, can_mount_why_not=found.can_mount_why_not,
        agent_run_id=found.agent_run_id, last_seen_at=now, gpu=found.gpu, capacity=found.capacity,
        runtimes=tuple(NodeRuntime(name=r.name, why_not=r.why_not, version=r.version) for r in found.runtimes)
        or PROCESSES,
    )  # fmt: skip


def node_state(row: NodeRow) -> NodeState:
    """The public state of a node."""
    state = row.state
    assert state in ("ready", "not_ready", "lost")
    return NodeState(
        id=row.id, state=state, address=row.address, network=row.network, cpu=row.cpu,  # type: ignore[arg-type]
        memory_mib=row.memory_mib, isolation=row.isolation, limits=row.limits, can_mount=row.can_mount,
        gpu=row.gpu, capacity=row.capacity,
        runtimes=tuple(name for name in get_args(Runtime) if name in {r.name for r in row.runtimes if not r.why_not}),
    )  # fmt: skip


def replica_state(r: Replica) -> ReplicaState:
    """The public state of a replica: no log lines, nothing of its environment."""
    return ReplicaState(
        id=r.id, service=r.service, revision=r.spec.number, generation=r.generation, state=r.state, node=r.node,
        endpoints=r.endpoints, pid=r.pid, restarts=r.restarts, cause=r.cause, message=r.message,
        exit_code=r.exit_code, phase_s=r.phase_s, restart_nonce=r.spec.restart_nonce,
        out_of_traffic=r.out_of_traffic, drain_number=r.drain_number, keep_alive_s=r.keep_alive_s,
        grpc=r.spec.traffic.grpc, runtime=r.runtime, pins=r.pins, row_version=r.row_version,
    )  # fmt: skip


def replica_message(r: Replica) -> replicas_pb2.Replica:
    """A replica as the API shows it."""
    endpoint = r.endpoints[0] if r.endpoints else None
    why = said(r)
    return replicas_pb2.Replica(
        name=r.id, id=r.id, service=r.service, revision=r.spec.number, status=r.state, ready=r.state == "ready",
        node=r.node or "", address=f"{endpoint.ip}:{endpoint.port}" if endpoint else "", pid=r.pid or 0,
        container=r.container,
        restarts=r.restarts, reason=why.code, message=why.message, create_time=timestamp(r.created_at),
        ready_time=timestamp(r.ready_at), phase_s=r.phase_s, last_exit_code=r.exit_code or 0,
        last_log_lines=r.log_tail, isolation=r.isolation, limits=r.limits,
        isolated=r.out_of_traffic == "isolated", restart_nonce=r.spec.restart_nonce, runtime=r.runtime, pins=r.pins,
    )  # fmt: skip


def node_view(row: NodeRow, holders: tuple[Holder, ...], service: str, silent_s: float) -> Node:
    """A node as decisions about `service` see it."""
    return Node(
        id=row.id, state=row.state, cpu=row.cpu, memory_mib=row.memory_mib, can_mount=row.can_mount,
        can_mount_why_not=row.can_mount_why_not, gpu=row.gpu, runtimes=row.runtimes, capacity=row.capacity,
        cpu_reserved=sum(h.cpu for h in holders),
        memory_reserved_mib=sum(h.memory_mib for h in holders), gpu_reserved=sum(h.gpu for h in holders),
        of_service=sum(h.replicas for h in holders if h.service == service), holders=holders, silent_s=silent_s,
    )  # fmt: skip


def node_message(row: NodeRow, holders: tuple[Holder, ...]) -> nodes_pb2.Node:
    """A node as the API shows it."""
    return nodes_pb2.Node(
        node=row.id, state=row.state, address=row.address, cpu=row.cpu, memory_mib=row.memory_mib,
        cpu_used=sum(h.cpu for h in holders), memory_used_mib=sum(h.memory_mib for h in holders),
        replicas=sum(h.replicas for h in holders), isolation=row.isolation, limits=row.limits,
        last_seen_time=timestamp(row.last_seen_at), gpu=row.gpu, gpu_used=sum(h.gpu for h in holders),
        capacity=row.capacity,
        runtimes=[nodes_pb2.NodeRuntime(name=r.name, why_not=r.why_not, version=r.version) for r in row.runtimes],
    )  # fmt: skip


def timestamp(at: datetime | None) -> Timestamp | None:
    """For protobuf; None stays unset."""
    if at is None:
        return None
    found = Timestamp()
    found.FromDatetime(at)
    return found
