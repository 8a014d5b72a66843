"""The agent's gRPC API (proto/easel_proto/internal/v1/agent.proto). Thin: decodes, asks the fleet, encodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from msgspec import Struct

from easel_agent.docker.build import NOT_CONFIGURED
from easel_agent.docker.runtime import DockerRuntime
from easel_agent.fleet import Fleet, NodeChanged
from easel_agent.model import Isolation, Restarting, Stopping
from easel_contracts.errors import InvalidInput, Refused, Unauthenticated
from easel_contracts.spec import RunSpec
from easel_kit.grpc import caller
from easel_proto.internal.v1 import agent_pb2, agent_pb2_grpc

SHORTEST_HEARTBEAT_S = 0.2


class What(Struct, frozen=True, kw_only=True):
    """What this node is and can."""

    address: str
    cpu: float
    memory_mib: int
    gpus: int
    limits: str
    capacity: Callable[[], str]
    isolation: Isolation


class AgentApi(agent_pb2_grpc.AgentServicer):
    """Only the scheduler calls this."""

    def __init__(self, fleet: Fleet, what: What, docker: DockerRuntime | None) -> None:
        self._fleet, self._what, self._docker = fleet, what, docker

    async def Describe(self, request: agent_pb2.DescribeRequest, context: Any) -> agent_pb2.NodeDescription:
        """What this node is and can."""
        _from_scheduler()
        node, what, isolation = self._fleet.node, self._what, self._what.isolation
        return agent_pb2.NodeDescription(
            node_id=node.node_id, address=what.address, network=node.network, cpu=what.cpu,
            memory_mib=what.memory_mib, isolation=isolation.sentence, limits=what.limits,
            can_mount=isolation.mount_ns, can_mount_why_not=isolation.mounts_refused, agent_run_id=node.run_id,
            gpu=what.gpus, capacity=what.capacity(), runtimes=[agent_pb2.Runtime(name="process"), self._docker_here()],
        )  # fmt: skip

    def _docker_here(self) -> agent_pb2.Runtime:
        if self._docker is None:
            return agent_pb2.Runtime(name="docker", why_not=NOT_CONFIGURED)
        events = self._docker.events
        return agent_pb2.Runtime(name="docker", why_not=events.why_not, version=events.version)

    async def Start(self, request: agent_pb2.StartRequest, context: Any) -> agent_pb2.StartResponse:
        """Start a replica."""
        _from_scheduler()
        try:
            run = msgspec.msgpack.decode(request.spec_msgpack, type=RunSpec)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"spec_msgpack is not a RunSpec: {error}") from error
        if run.replica != request.replica_id or "/" in run.replica or not run.replica.strip("."):
            raise InvalidInput(
                f"replica_id {request.replica_id!r} and the spec's {run.replica!r} must be one plain name"
            )
        try:
            known = self._fleet.start(run, request.fencing_token)
        except OSError as error:
            raise Refused("NODE_DISK", f"the node cannot keep anything on disk: {error}", "free some space") from error
        return agent_pb2.StartResponse(already_known=known)

    async def Stop(self, request: agent_pb2.StopRequest, context: Any) -> agent_pb2.StopResponse:
        """Begin to end a replica."""
        _from_scheduler()
        stopping = Stopping(grace_s=max(0.0, request.grace_s), sigterm=request.sigterm, idle=request.idle)
        known = self._fleet.stop(request.replica_id, stopping, request.fencing_token)
        return agent_pb2.StopResponse(known=known)

    async def Restart(self, request: agent_pb2.RestartRequest, context: Any) -> agent_pb2.RestartResponse:
        """Begin to start a replica's program anew."""
        _from_scheduler()
        how = Stopping(grace_s=max(0.0, request.grace_s), sigterm=request.sigterm, idle=False)
        restarting = Restarting(number=request.number, how=how)
        known = self._fleet.restart(request.replica_id, restarting, request.fencing_token)
        return agent_pb2.RestartResponse(known=known)

    async def Watch(self, request: agent_pb2.WatchRequest, context: Any) -> AsyncIterator[agent_pb2.WatchEvent]:
        """Snapshot, done, changes, heartbeats."""
        _from_scheduler()
        snapshot = True
        async for report in self._fleet.watch(max(SHORTEST_HEARTBEAT_S, request.heartbeat_s or 1.0)):
            if isinstance(report, NodeChanged):
                yield agent_pb2.WatchEvent(node_changed=True)
            elif report is not None:
                yield agent_pb2.WatchEvent(replica_msgpack=msgspec.msgpack.encode(report))
            elif snapshot:
                snapshot = False
                yield agent_pb2.WatchEvent(snapshot_done=True)
            else:
                yield agent_pb2.WatchEvent(heartbeat=True)

    async def Images(self, request: agent_pb2.ImagesRequest, context: Any) -> agent_pb2.ImagesResponse:
        """Images of the node's engine; none without one."""
        _from_scheduler()
        listed = await self._docker.images.listed() if self._docker else []
        return agent_pb2.ImagesResponse(images=[
            agent_pb2.NodeImage(
                id=item["Id"], tags=item.get("RepoTags") or (), digests=item.get("RepoDigests") or (),
                size_bytes=item["Size"], created_unix_s=item["Created"], labels=item.get("Labels") or {},
            ) for item in listed
        ])  # fmt: skip

    async def Logs(self, request: agent_pb2.LogsRequest, context: Any) -> AsyncIterator[agent_pb2.LogData]:
        """A replica's log."""
        _from_scheduler()
        pieces = self._fleet.logs(request.replica_id, tail_lines=request.tail_lines, follow=request.follow,
                                  previous=request.previous)  # fmt: skip
        async for stream, data in pieces:
            yield agent_pb2.LogData(stream=stream, data=data)


def _from_scheduler() -> None:
    """Other processes of Easel have no business here: whoever may start programs owns the node."""
    if caller().actor != "scheduler":
        raise Unauthenticated("NOT_THE_SCHEDULER", f"only the scheduler may call the agent, not {caller().actor}")
