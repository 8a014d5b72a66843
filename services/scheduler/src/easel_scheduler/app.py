"""Builds the scheduler: the only place where its parts meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from easel_contracts.facts import Fact, RouteState, ScaleState, ServiceState, TrafficState
from easel_kit.projection import Projection
from easel_kit.reconcile import Reconciler
from easel_kit.run import Process
from easel_kit.trail import TrailApi
from easel_proto.internal.v1 import audit_pb2_grpc, scheduler_pb2_grpc
from easel_proto.v1 import nodes_pb2_grpc, replicas_pb2_grpc
from easel_scheduler.changes import Changes
from easel_scheduler.commands import Commands
from easel_scheduler.decide.world import Replica
from easel_scheduler.handlers import Handlers
from easel_scheduler.in_flight import InFlight
from easel_scheduler.links import AgentLink, LinkEvents, Links
from easel_scheduler.lives import Lives
from easel_scheduler.logs import Logs
from easel_scheduler.model import NodeRow
from easel_scheduler.nodes import Nodes
from easel_scheduler.nodes_api import NodesApi
from easel_scheduler.pins import Pins
from easel_scheduler.placement_api import PlacementApi
from easel_scheduler.planner import Planner
from easel_scheduler.pruning import Pruning
from easel_scheduler.replicas_api import ReplicasApi
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store, node_facts, replica_facts
from easel_scheduler.wakes import Wakes

CONCURRENCY = 32
"""Keys per loop at once: agents that do not answer must not hold up the others."""


class Scheduler:
    """The parts and how they wake one another."""

    def __init__(self, process: Process[SchedulerSettings]) -> None:
        settings, db, clock, leases = process.settings, process.db, process.clock, process.leases
        self.process, self.settings = process, settings
        self.changes = Changes()
        self.store = Store(db, settings.workspace)
        self.links = Links()
        self.services = Projection(db, "service", ServiceState)
        self.scales = Projection(db, "scale", ScaleState)
        self.routes = Projection(db, "route", RouteState)
        self.traffic = Projection(db, "traffic", TrafficState)
        self.nodes = Nodes(self.store, self.links, leases, clock, settings)
        self.nodes.on_changed = self._node_changed
        in_flight = InFlight(process.channel("router"), settings.workspace)
        self.planner = Planner(self.store, self.nodes, leases, clock, settings, self.services, self.scales, self.routes,
                               in_flight, self._replica_changed)  # fmt: skip
        self.commands = Commands(self.store, clock, self._asked)
        self.pins = Pins(db, settings.workspace)
        lives = Lives(self.store, self.links, self.nodes, leases, clock, self.routes, self.traffic, self.pins,
                      self._replica_changed)  # fmt: skip
        self.wakes = Wakes(db, leases, clock)
        self.loops = [
            self._loop("plans", self.planner.reconcile, self.planner.keys),
            self._loop("lives", lives.reconcile, lives.keys),
            self._loop("nodes", self.nodes.reconcile, self.nodes.keys),
            self._loop("room", self._room_changed, _nothing),
        ]
        self.wake = self.wakes.wake

    def _loop(self, name: str, reconcile: Callable[[str], Awaitable[float | None]],
              keys: Callable[[], Awaitable[list[str]]]) -> Reconciler:  # fmt: skip
        loop = Reconciler(name, reconcile, self.process.clock, keys, resync_s=self.settings.resync_s,
                          concurrency=CONCURRENCY)  # fmt: skip
        return self.wakes.add(loop, keys)

    def link(self, address: str) -> AgentLink:
        """The connection to one agent."""
        events = LinkEvents(
            token_for=self.process.leases.token_for, described=self.nodes.described, reported=self._reported,
            synced=self._synced, down=self._down,
        )  # fmt: skip
        link = AgentLink(address, self.process.token, self.process.clock, events,
                         heartbeat_s=self.settings.heartbeat_s, lease_s=self.settings.node_lease_s)  # fmt: skip
        self.links.add(link)
        return link

    async def replica_facts(self) -> list[Fact]:
        """For readers that rebuild."""
        return replica_facts(await self.store.all_replicas(), self.process.db.epoch)

    async def node_facts(self) -> list[Fact]:
        """For readers that rebuild."""
        return node_facts(await self.store.nodes(), self.process.db.epoch)

    def _reported(self, replica_id: str) -> None:
        """By a link of this copy, which therefore holds the node's lease."""
        self.wakes.wake_here("lives", replica_id)

    def _replica_changed(self, r: Replica) -> None:
        self.changes.tell(r.service)
        if r.node is not None and (r.live or self.links.knowing(r.id)):
            self.wake("lives", r.id)
        if r.state != "placed":
            self.wake("plans", r.service)
        if not r.live and r.node is not None:
            self.wake("room", "room")

    def _asked(self, r: Replica) -> None:
        """A user's word is for the plan, whatever the replica does."""
        self._replica_changed(r)
        self.wake("plans", r.service)

    async def _room_changed(self, _: str) -> None:
        """Something was freed: whoever waits for room is looked at again."""
        for service in await self.store.services(pending=True):
            self.wake("plans", service)

    async def _synced(self, link: AgentLink) -> None:
        """The agent has told about all it knows: what should run there is compared with it."""
        assert link.node_id is not None
        self.wake("nodes", link.node_id)
        for replica_id in [*await self.store.live_ids(link.node_id), *link.reports]:
            self.wake("lives", replica_id)

    def _down(self, link: AgentLink) -> None:
        if link.node_id is not None:
            self.wake("nodes", link.node_id)

    async def _node_changed(self, row: NodeRow) -> None:
        self.wake("nodes", row.id)
        self.wake("room", "room")
        if row.state == "lost":
            for replica_id in await self.store.live_ids(row.id):
                self.wake("lives", replica_id)


async def build(process: Process[SchedulerSettings]) -> None:
    """Registers everything the scheduler does."""
    scheduler = Scheduler(process)
    handlers = Handlers(scheduler.planner, scheduler.wake, scheduler.services, scheduler.scales, scheduler.routes,
                        scheduler.traffic)  # fmt: skip
    process.subscribe(
        {
            "service": handlers.on_service,
            "scale": handlers.on_scale,
            "route": handlers.on_route,
            "traffic": handlers.on_traffic,
        }
    )
    process.owns("replica", scheduler.replica_facts)
    process.owns("node", scheduler.node_facts)
    _serve(process, scheduler)
    for loop in scheduler.loops:
        process.background(loop.run)
        process.watch_loop(loop)
    wakes = scheduler.wakes
    for task in (wakes.send_for_ever, wakes.listen_for_ever, wakes.take_over_for_ever):
        process.background(task)
    for address in process.settings.agents():
        link = scheduler.link(address)
        process.background(link.run)
        process.on_stop(link.close)
    pruning = Pruning(scheduler.store, scheduler.pins, scheduler.services, process.settings, scheduler.wake)
    process.background(lambda: pruning.run(process.clock))
    process.gauge("agents_connected", "Agents that are connected",
                  lambda: sum(link.run_id is not None for link in scheduler.links.all()))  # fmt: skip


def _serve(process: Process[SchedulerSettings], scheduler: Scheduler) -> None:
    """The APIs."""
    logs = Logs(scheduler.store, scheduler.links, scheduler.changes, process.clock)
    replicas = ReplicasApi(scheduler.store, scheduler.planner, scheduler.commands, logs, process.settings)
    process.serve(replicas_pb2_grpc.add_ReplicasServicer_to_server, replicas, "easel.v1.Replicas")
    nodes = NodesApi(scheduler.store, scheduler.links, process.clock, scheduler.nodes, process.settings)
    process.serve(nodes_pb2_grpc.add_NodesServicer_to_server, nodes, "easel.v1.Nodes")
    placement = PlacementApi(scheduler.planner)
    process.serve(scheduler_pb2_grpc.add_PlacementServicer_to_server, placement, "easel.internal.v1.Placement")
    trail = TrailApi(process.db, "scheduler")
    process.serve(audit_pb2_grpc.add_AuditTrailServicer_to_server, trail, "easel.internal.v1.AuditTrail")


async def _nothing() -> list[str]:
    return []
