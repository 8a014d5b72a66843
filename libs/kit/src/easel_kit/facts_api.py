"""easel.internal.v1.Facts: the owner's side, and a reader's rebuild of its projections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio

from easel_contracts import errors, facts
from easel_contracts.facts import Entity, Fact
from easel_kit.db import Database
from easel_proto.internal.v1 import facts_pb2, facts_pb2_grpc

ListFacts = Callable[[], Awaitable[list[Fact]]]
"""The newest fact of every entity of a kind, made from the owner's rows."""

OWNERS: dict[Entity, str] = {
    "service": "control",
    "key": "control",
    "group": "control",
    "replica": "scheduler",
    "node": "scheduler",
    "scale": "autoscaler",
    "route": "router",
    "traffic": "router",
}


class FactsApi(facts_pb2_grpc.FactsServicer):
    """Serves what this process owns."""

    def __init__(self, database: Database, owned: dict[Entity, ListFacts]) -> None:
        self._database, self._owned = database, owned

    async def List(self, request: facts_pb2.ListFactsRequest, context: object) -> AsyncIterator[facts_pb2.FactMessage]:
        """The facts, then the outbox id to read on from, taken before the rows: twice is possible, missing is not."""
        listing = next((call for entity, call in self._owned.items() if entity == request.entity), None)
        if listing is None:
            raise errors.NotFound("NOT_OWNED", f"{request.entity!r} is not owned here; owned: {sorted(self._owned)}")
        async with self._database.connection() as connection:
            outbox_id = await connection.fetchval("SELECT coalesce(min(id), 0) FROM outbox")
        for fact in await listing():
            yield facts_pb2.FactMessage(fact_msgpack=facts.encode(fact))
        yield facts_pb2.FactMessage(outbox_id=outbox_id)


async def fetch(channel: grpc.aio.Channel, entity: Entity) -> list[Fact]:
    """Every fact of an entity from its owner; raises grpc.aio.AioRpcError."""
    stub = facts_pb2_grpc.FactsStub(channel)
    found: list[Fact] = []
    async for message in stub.List(facts_pb2.ListFactsRequest(entity=entity), timeout=30):
        if message.fact_msgpack:
            found.append(facts.decode(message.fact_msgpack))
    return found
