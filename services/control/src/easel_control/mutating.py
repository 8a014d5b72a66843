"""What mutations have in common, whatever they change: who asks for what, one transaction, answers that are remembered.

The work gets a connection and returns the answer; row, fact, audit record and answer are written in its transaction, or
none of them is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message
from msgspec import Struct

from easel_contracts.errors import Conflict
from easel_control.answers import Answers, Ticket
from easel_control.pages import workspace_of
from easel_kit.db import Connection, Database, Stale
from easel_kit.grpc import Caller, caller
from easel_kit.outbox import refuse_when_full

TRIES = 5
"""Rounds against others who change the same thing at the same time."""

M = TypeVar("M", bound=Message)


class Call(Struct, frozen=True, kw_only=True):
    """Who asks for what."""

    caller: Caller
    action: str
    """E.g. `Services.Create`."""
    workspace: str
    ticket: Ticket
    dry_run: bool = False


class _DryRun(Exception):
    """Takes the transaction back."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class Mutations:
    """Runs mutations of one workspace."""

    def __init__(self, database: Database, answers: Answers, workspace: str) -> None:
        self._database, self._answers, self._workspace = database, answers, workspace

    def call(self, action: str, request: Any, *, dry_run: bool = False) -> Call:
        """The call that a request with workspace and idempotency key is. Raises NotFound for a foreign workspace,
        InvalidInput for a key that is too long."""
        who, workspace = caller(), workspace_of(request.workspace, self._workspace)
        content = request.SerializeToString(deterministic=True)
        ticket = self._answers.ticket(workspace, who.actor, request.idempotency_key, action, content)
        return Call(caller=who, action=action, workspace=workspace, ticket=ticket, dry_run=dry_run)

    async def known(self, call: Call, kind: type[M]) -> M | None:
        """What the same request was answered before."""
        if not call.ticket.key:
            return None
        async with self._database.transaction() as connection:
            found = await self._answers.find(connection, call.ticket)
        return None if found is None else kind.FromString(found)

    async def run(self, call: Call, kind: type[M], work: Callable[[Connection], Awaitable[M]]) -> M:
        """`once`, again as long as others are first. Raises Conflict when they always are."""
        for _ in range(TRIES):
            try:
                return await self.once(call, kind, work)
            except Stale:
                continue
        raise Conflict("CHANGED_MEANWHILE", "others keep changing it at the same time", "try again")

    async def once(self, call: Call, kind: type[M], work: Callable[[Connection], Awaitable[M]]) -> M:
        """The work's answer, or what the same request was answered before. Raises what the work raises; Stale."""
        try:
            async with self._database.transaction() as connection:
                await refuse_when_full(connection)
                await self._answers.alone(connection, call.ticket)
                if (found := await self._answers.find(connection, call.ticket)) is not None:
                    return kind.FromString(found)
                answer = await work(connection)
                if call.dry_run:
                    raise _DryRun(answer)
                await self._answers.save(connection, call.ticket, answer.SerializeToString())
        except _DryRun as dry:
            shown: M = dry.answer
            return shown
        return answer
