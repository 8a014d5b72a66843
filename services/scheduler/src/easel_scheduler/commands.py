"""What users change of replicas: row, fact, audit record and answer in one transaction, or none of them.

A command only marks rows; the planner and the lives see the marks, so that a crash in between loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message
from msgspec import Struct

from easel_contracts.errors import Conflict, NotFound
from easel_kit import audit
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_kit.grpc import Caller
from easel_kit.outbox import refuse_when_full
from easel_proto.v1 import replicas_pb2
from easel_scheduler import answers
from easel_scheduler.answers import Ticket
from easel_scheduler.decide import asked
from easel_scheduler.decide.world import Reason, Replica
from easel_scheduler.model import replica_message
from easel_scheduler.store import Store

TRIES = 5
"""Rounds against the planner and the agents' reports, which write the same rows."""

M = TypeVar("M", bound=Message)


class Call(Struct, frozen=True, kw_only=True):
    """Who asks for what."""

    caller: Caller
    action: str
    """E.g. `Replicas.Restart`."""
    ticket: Ticket
    service: str
    why: Reason


class Commands:
    """Marks replicas."""

    def __init__(self, store: Store, clock: Clock, on_changed: Callable[[Replica], None]) -> None:
        self._store, self._clock, self._on_changed = store, clock, on_changed

    async def restart(
        self, call: Call, names: Sequence[str], *, soft: bool, now: bool
    ) -> replicas_pb2.RestartReplicasResponse:
        """Replaces replicas, or has their processes started anew; all of them or none. Raises NotFound, Conflict."""

        def change(r: Replica) -> Replica | None:
            return asked.restarted(r) if soft else asked.replaced(r, now=now)

        def answer(rows: list[Replica]) -> replicas_pb2.RestartReplicasResponse:
            return replicas_pb2.RestartReplicasResponse(replicas=[replica_message(r) for r in rows])

        return await self._again(call, names, change, answer, replicas_pb2.RestartReplicasResponse)

    async def isolate(self, call: Call, name: str, *, isolated: bool) -> replicas_pb2.Replica:
        """Takes a replica out of traffic, or lets it back. Raises NotFound, Conflict."""

        def change(r: Replica) -> Replica | None:
            return asked.isolated(r, isolated=isolated, now=self._clock.now())

        return await self._again(call, [name], change, lambda rows: replica_message(rows[0]), replicas_pb2.Replica)

    async def _again(
        self, call: Call, names: Sequence[str], change: Callable[[Replica], Replica | None],
        answer: Callable[[list[Replica]], M], kind: type[M],
    ) -> M:  # fmt: skip
        for _ in range(TRIES):
            written: list[Replica] = []
            try:
                async with self._store.database.transaction() as connection:
                    await refuse_when_full(connection)
                    if (known := await answers.find(connection, call.ticket)) is not None:
                        return kind.FromString(known)
                    rows = await self._change(connection, call, names, change, written)
                    made = answer(rows)
                    await answers.save(connection, call.ticket, made.SerializeToString())
            except Stale:
                continue
            for r in written:
                self._on_changed(r)
            return made
        raise Conflict("CHANGED_MEANWHILE", f"the replicas of {call.service} keep changing", "try again")

    async def _change(
        self, connection: Connection, call: Call, names: Sequence[str], change: Callable[[Replica], Replica | None],
        written: list[Replica],
    ) -> list[Replica]:  # fmt: skip
        rows = {name: await self._store.replica(name, connection) for name in dict.fromkeys(names)}
        unknown = [name for name, r in rows.items() if r is None or r.service != call.service]
        if unknown:
            raise NotFound("NO_REPLICA", f"{call.service} has no replica {', '.join(unknown)}",
                           f"`easel w {call.service}` lists them")  # fmt: skip
        found = []
        for before in rows.values():
            assert before is not None
            after = change(before)
            if after is not None:
                after = await self._store.update(connection, after, call.why, actor=call.caller.actor)
                await audit.record(connection, call.caller, self._store.workspace, call.action,
                                   f"replica/{after.id}", _shown(before), _shown(after))  # fmt: skip
                written.append(after)
            found.append(after or before)
        return found


def _shown(r: Replica) -> dict[str, Any]:
    """What the audit keeps of a replica."""
    return {
        "service": r.service, "revision": r.spec.number, "state": r.state, "node": r.node,
        "out_of_traffic": r.out_of_traffic, "replacing": r.replacing, "restart_asked": r.restart_asked,
    }  # fmt: skip
