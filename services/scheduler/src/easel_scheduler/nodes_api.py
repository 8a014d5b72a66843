"""easel.v1.Nodes."""

from __future__ import annotations

from msgspec.structs import replace

from easel_contracts.errors import NotFound
from easel_kit.clock import Clock
from easel_proto.v1 import nodes_pb2, nodes_pb2_grpc
from easel_scheduler.decide.world import Holder
from easel_scheduler.links import Links
from easel_scheduler.model import NodeRow, node_message
from easel_scheduler.store import Store


class NodesApi(nodes_pb2_grpc.NodesServicer):
    """What the nodes are and what is reserved on them."""

    def __init__(self, store: Store, links: Links, clock: Clock) -> None:
        self._store, self._links, self._clock = store, links, clock

    async def List(self, request: nodes_pb2.ListNodesRequest, context: object) -> nodes_pb2.ListNodesResponse:
        """Every node."""
        holders = await self._store.holders()
        rows = await self._store.nodes()
        return nodes_pb2.ListNodesResponse(nodes=[self._message(row, holders.get(row.id, ())) for row in rows])

    async def Get(self, request: nodes_pb2.GetNodeRequest, context: object) -> nodes_pb2.Node:
        """One node; NotFound."""
        row = await self._store.node(request.node)
        if row is None:
            known = ", ".join(found.id for found in await self._store.nodes()) or "none has joined yet"
            raise NotFound("NODE_NOT_FOUND", f"there is no node {request.node!r}", f"nodes: {known}")
        return self._message(row, (await self._store.holders()).get(row.id, ()))

    def _message(self, row: NodeRow, holders: tuple[Holder, ...]) -> nodes_pb2.Node:
        link = self._links.of_node(row.id)
        if link is not None and link.run_id is not None:
            row = replace(row, last_seen_at=self._clock.now())
        return node_message(row, holders)
