"""An agent that runs nothing: it takes commands, remembers them and reports what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
import msgspec
from msgspec.structs import replace

from easel_contracts.runtime import ReplicaReport
from easel_contracts.spec import RunSpec
from easel_proto.internal.v1 import agent_pb2, agent_pb2_grpc


class FakeAgent(agent_pb2_grpc.AgentServicer):
    """One node. By default a started replica becomes ready at once, and a stopped one stops."""

    def __init__(self, address: str, node: str = "n1", *, cpu: float = 8.0, memory_mib: int = 8000) -> None:
        self.address, self.node, self.cpu, self.memory_mib = address, node, cpu, memory_mib
        self.run = 1
        self.gpu = 0
        self.runtimes = [agent_pb2.Runtime(name="process")]
        self.images: list[agent_pb2.NodeImage] | None = []
        """None: it answers no such question."""
        self.reports: dict[str, ReplicaReport] = {}
        self.specs: dict[str, RunSpec] = {}
        self.starts: list[str] = []
        self.stops: list[agent_pb2.StopRequest] = []
        self.restarts: list[agent_pb2.RestartRequest] = []
        self.tokens: list[int] = []
        self.highest = 0
        self.outcome: Callable[[RunSpec], dict[str, Any] | None] = lambda _: {"phase": "running", "ready": True}
        """What a started replica reports; None: nothing."""
        self.stops_at_once = True
        self.restarts_at_once = True
        self.silent = False
        """Beats no more and answers nothing."""
        self.logs: dict[str, list[bytes]] = {}
        self.watches = 0
        self.tells_all = asyncio.Event()
        """Set: a snapshot comes to its end."""
        self.tells_all.set()
        self._watch: asyncio.Queue[agent_pb2.WatchEvent | None] | None = None
        self._server: grpc.aio.Server | None = None

    async def serve(self) -> None:
        self._server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def die(self) -> None:
        """As kill -9 of the agent: its replicas die with it."""
        assert self._server is not None
        await self._server.stop(0)
        self.run += 1
        self.reports.clear()

    async def crash(self, *adopted: str) -> None:
        """As kill -9 of the agent, whose next life finds these replicas running and takes them over."""
        assert self._server is not None
        await self._server.stop(0)
        self.run += 1
        self.reports = {
            name: replace(self.reports[name], agent_run_id=self.run_id, sequence=1, restarts=0, restart_number=0,
                          adopted=True)
            for name in adopted
        }  # fmt: skip

    async def cut(self) -> None:
        """The connection breaks; the agent and its replicas live on."""
        assert self._server is not None
        await self._server.stop(0)

    def report(self, replica: str, **changes: Any) -> None:
        """Something about a replica changed."""
        before = self.reports.get(replica)
        if before is None:
            service, revision, _ = replica.rsplit("-", 2)
            before = ReplicaReport(replica=replica, service=service, revision=int(revision), sequence=0,
                                   agent_run_id=self.run_id, phase="starting", ip="127.0.0.1", port=20001,
                                   network="host")  # fmt: skip
        after = replace(before, sequence=before.sequence + 1, **{"ready": False, **changes})
        self.reports[replica] = after
        self._send(after)

    @property
    def run_id(self) -> str:
        return f"run-{self.run}"

    # The agent's API.

    async def Describe(self, request: agent_pb2.DescribeRequest, context: Any) -> agent_pb2.NodeDescription:
        if self.silent:
            await asyncio.sleep(3600)
        return agent_pb2.NodeDescription(
            node_id=self.node, address="127.0.0.1", network="host", cpu=self.cpu, memory_mib=self.memory_mib,
            isolation="uid", limits="cgroup v2", can_mount=True, agent_run_id=self.run_id,
            gpu=self.gpu, runtimes=self.runtimes, capacity="whole machine",
        )  # fmt: skip

    async def Start(self, request: agent_pb2.StartRequest, context: Any) -> agent_pb2.StartResponse:
        await self._fence(request.fencing_token, context)
        known = request.replica_id in self.reports
        self.starts.append(request.replica_id)
        spec = msgspec.msgpack.decode(request.spec_msgpack, type=RunSpec)
        self.specs[request.replica_id] = spec
        if not known and (outcome := self.outcome(spec)) is not None:
            self.report(request.replica_id, **outcome)
        return agent_pb2.StartResponse(already_known=known)

    async def Stop(self, request: agent_pb2.StopRequest, context: Any) -> agent_pb2.StopResponse:
        await self._fence(request.fencing_token, context)
        self.stops.append(request)
        if request.replica_id not in self.reports:
            return agent_pb2.StopResponse(known=False)
        if self.stops_at_once:
            self.report(request.replica_id, phase="stopped")
            del self.reports[request.replica_id]
        return agent_pb2.StopResponse(known=True)

    async def Restart(self, request: agent_pb2.RestartRequest, context: Any) -> agent_pb2.RestartResponse:
        await self._fence(request.fencing_token, context)
        self.restarts.append(request)
        if request.replica_id not in self.reports:
            return agent_pb2.RestartResponse(known=False)
        if self.restarts_at_once and self.reports[request.replica_id].restart_number < request.number:
            self.restarted(request.replica_id, request.number)
        return agent_pb2.RestartResponse(known=True)

    def restarted(self, replica: str, number: int) -> None:
        """Its process was started anew and is ready."""
        restarts = self.reports[replica].restarts + 1
        self.report(replica, phase="starting", restart_number=number, restarts=restarts)
        self.report(replica, phase="running", ready=True)

    async def Watch(self, request: agent_pb2.WatchRequest, context: Any) -> AsyncIterator[agent_pb2.WatchEvent]:
        if self._watch is not None:
            self._watch.put_nowait(None)
        self.watches += 1
        mine: asyncio.Queue[agent_pb2.WatchEvent | None] = asyncio.Queue()
        self._watch = mine
        await self.tells_all.wait()
        for report in list(self.reports.values()):
            yield _event(report)
        yield agent_pb2.WatchEvent(snapshot_done=True)
        while True:
            try:
                event = await asyncio.wait_for(mine.get(), request.heartbeat_s)
            except TimeoutError:
                event = agent_pb2.WatchEvent(heartbeat=True)
            if event is None:
                return
            if not self.silent:
                yield event

    async def Images(self, request: agent_pb2.ImagesRequest, context: Any) -> agent_pb2.ImagesResponse:
        if self.images is None:
            await asyncio.sleep(3600)
        return agent_pb2.ImagesResponse(images=self.images)

    async def Logs(self, request: agent_pb2.LogsRequest, context: Any) -> AsyncIterator[agent_pb2.LogData]:
        if request.replica_id not in self.logs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such log")
        for line in self.logs[request.replica_id]:
            yield agent_pb2.LogData(stream="stdout", data=line)

    async def _fence(self, token: int, context: Any) -> None:
        if self.silent:
            await asyncio.sleep(3600)
        self.tokens.append(token)
        if token < self.highest:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "STALE_FENCING_TOKEN")
        self.highest = token

    def say_changed(self) -> None:
        """What it describes is another now."""
        if self._watch is not None:
            self._watch.put_nowait(agent_pb2.WatchEvent(node_changed=True))

    def _send(self, report: ReplicaReport) -> None:
        if self._watch is not None:
            self._watch.put_nowait(_event(report))


def _event(report: ReplicaReport) -> agent_pb2.WatchEvent:
    return agent_pb2.WatchEvent(replica_msgpack=msgspec.msgpack.encode(report))
