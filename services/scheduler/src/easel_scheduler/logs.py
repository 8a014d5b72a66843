"""Output of replicas, fetched from their agents and merged as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

from easel_contracts.errors import NotFound, Unavailable
from easel_kit.clock import Clock
from easel_proto.internal.v1 import agent_pb2
from easel_proto.v1 import replicas_pb2
from easel_scheduler.changes import Changes
from easel_scheduler.decide.world import Replica
from easel_scheduler.links import Links
from easel_scheduler.store import Store

TAIL_LINES = 200
"""When the caller does not say."""

BUFFERED_CHUNKS = 64
"""Per call; agents are read no faster than the caller reads."""

DISCOVER_S = 5.0
"""A follower looks for new replicas this often, should another copy of the scheduler have made them."""

Queue = asyncio.Queue[replicas_pb2.LogChunk | None]


class Logs:
    """Serves Replicas.Logs."""

    def __init__(self, store: Store, links: Links, changes: Changes, clock: Clock) -> None:
        self._store, self._links, self._changes, self._clock = store, links, changes, clock

    async def stream(self, request: replicas_pb2.ReplicaLogsRequest) -> AsyncIterator[replicas_pb2.LogChunk]:
        """Chunks of all asked-for replicas; with `follow` it goes on, also with replicas that come later."""
        if not request.follow and not await self._sources(request):
            raise NotFound("NO_REPLICA", f"there is no replica of {request.service!r}" +
                           (f" named {request.replica!r}" if request.replica else ""),
                           "`easel w NAME` lists them")  # fmt: skip
        queue: Queue = asyncio.Queue(BUFFERED_CHUNKS)
        work = asyncio.create_task(self._work(request, queue))
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
            await work
        finally:
            work.cancel()

    async def _work(self, request: replicas_pb2.ReplicaLogsRequest, queue: Queue) -> None:
        try:
            with self._changes.follow(request.service) as changed:
                async with asyncio.TaskGroup() as group:
                    begun: set[str] = set()
                    while True:
                        changed.clear()
                        for r in await self._sources(request):
                            if r.id not in begun:
                                begun.add(r.id)
                                group.create_task(self._pump(r, request, queue))
                        if not request.follow:
                            break
                        await _either(changed, DISCOVER_S)
        finally:
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await queue.put(None)

    async def _sources(self, request: replicas_pb2.ReplicaLogsRequest) -> list[Replica]:
        """Named: that one, also when it has ended. Else all that have a node; where none lives, the last that ended."""
        if request.replica:
            found = await self._store.replica(request.replica)
            return [found] if found is not None and found.service == request.service else []
        rows = [r for r in await self._store.of_service(request.service) if r.node is not None]
        live = [r for r in rows if r.live]
        newest = sorted((r for r in rows if not r.live), key=lambda r: r.ended_at or r.state_at)[-1:]
        return live or newest

    async def _pump(self, r: Replica, request: replicas_pb2.ReplicaLogsRequest, queue: Queue) -> None:
        link = self._links.of_node(r.node)
        asked = agent_pb2.LogsRequest(
            replica_id=r.id, tail_lines=request.tail_lines or TAIL_LINES, follow=request.follow and r.live,
            previous=request.previous,
        )  # fmt: skip
        try:
            if link is None:
                raise Unavailable("AGENT_UNAVAILABLE", "its agent is not connected")
            async for data in link.stub.Logs(asked):
                await queue.put(replicas_pb2.LogChunk(replica=r.id, stream=data.stream, data=data.data))
        except (grpc.aio.AioRpcError, Unavailable) as error:
            await queue.put(_remembered(r, error))


def _remembered(r: Replica, error: grpc.aio.AioRpcError | Unavailable) -> replicas_pb2.LogChunk:
    """What the row kept of the output, and that it is not all."""
    said = error.details() if isinstance(error, grpc.aio.AioRpcError) else error.message
    lines = [f"[easel] the log of {r.id} cannot be read now: {said}"]
    if r.log_tail:
        lines += ["[easel] last lines that were kept:", *r.log_tail]
    return replicas_pb2.LogChunk(replica=r.id, stream="event", data=("\n".join(lines) + "\n").encode())


async def _either(changed: asyncio.Event, longest_s: float) -> None:
    try:
        async with asyncio.timeout(longest_s):
            await changed.wait()
    except TimeoutError:
        return
