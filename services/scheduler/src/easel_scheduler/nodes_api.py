"""easel.v1.Nodes."""

from __future__ import annotations

from msgspec.structs import replace

from easel_contracts.errors import NotFound
from easel_kit.clock import Clock
from easel_proto.v1 import common_pb2, nodes_pb2, nodes_pb2_grpc
from easel_scheduler.decide.explain_node import explain_node
from easel_scheduler.decide.world import Holder
from easel_scheduler.images import Images
from easel_scheduler.links import Links
from easel_scheduler.model import NodeRow, node_message, node_view
from easel_scheduler.nodes import Nodes
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store


class NodesApi(nodes_pb2_grpc.NodesServicer):
    """What the nodes are and what is reserved on them."""

    def __init__(
        self, store: Store, links: Links, clock: Clock, nodes: Nodes, settings: SchedulerSettings
    ) -> None:  # fmt: skip
        self._store, self._links, self._clock = store, links, clock
        self._nodes, self._settings = nodes, settings
        self._images = Images(links)

    async def List(self, request: nodes_pb2.ListNodesRequest, context: object) -> nodes_pb2.ListNodesResponse:
        """Every node."""
        holders = await self._store.holders()
        rows = await self._store.nodes()
        return nodes_pb2.ListNodesResponse(nodes=[self._message(row, holders.get(row.id, ())) for row in rows])

    async def Get(self, request: nodes_pb2.GetNodeRequest, context: object) -> nodes_pb2.Node:
        """One node; NotFound."""
        row = await self._row(request.node)
        return self._message(row, (await self._store.holders()).get(row.id, ()))

    async def ListImages(self, request: nodes_pb2.ListImagesRequest, context: object) -> nodes_pb2.ListImagesResponse:
        """What the nodes' engines have, without pulling anything; NotFound for a node that is not known."""
        rows = [await self._row(request.node)] if request.node else await self._store.nodes()
        return await self._images.of(rows, everything=request.all)

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why it has its state and who holds what of it; NotFound."""
        row = await self._row(request.name)
        link = self._links.of_node(row.id)
        holders = (await self._store.holders()).get(row.id, ())
        lines = explain_node(
            node_view(row, holders, "", self._nodes.silent_s(row.id)),
            connected=link is not None and link.run_id is not None, lease_s=self._settings.node_lease_s,
            lost_s=self._settings.node_lost_s, isolation=row.isolation, limits=row.limits,
        )  # fmt: skip
        answer = common_pb2.Explanation(
            part="scheduler", lines=[common_pb2.Why(code=x.code, message=x.message, hint=x.hint) for x in lines]
        )
        answer.at.FromDatetime(self._clock.now())
        return answer

    async def _row(self, node: str) -> NodeRow:
        row = await self._store.node(node)
        if row is None:
            known = ", ".join(found.id for found in await self._store.nodes()) or "none has joined yet"
            raise NotFound("NODE_NOT_FOUND", f"there is no node {node!r}", f"nodes: {known}")
        return row

    def _message(self, row: NodeRow, holders: tuple[Holder, ...]) -> nodes_pb2.Node:
        link = self._links.of_node(row.id)
        if link is not None and link.run_id is not None:
            row = replace(row, last_seen_at=self._clock.now())
        return node_message(row, holders)
