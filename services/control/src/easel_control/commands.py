"""Mutations: load, decide, write. Row, fact, audit record and answer go into one transaction, or none of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import AlreadyExists, Conflict, NotFound
from easel_contracts.facts import Cause
from easel_contracts.ids import uuid7
from easel_control import audit
from easel_control.admission import Admission, Prepared, revisions_count
from easel_control.answers import Answers, Ticket
from easel_control.decide import change as changes
from easel_control.decide.change import Change
from easel_control.model import RevisionRow, ServiceRow
from easel_control.pages import plain
from easel_control.store import Store
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_kit.grpc import Caller
from easel_kit.outbox import refuse_when_full
from easel_proto.v1 import services_pb2

TRIES = 5
"""Rounds against others who change the same service at the same time."""

Decide = Callable[[ServiceRow, Connection], Awaitable[Change | None]]
Work = Callable[[Connection], Awaitable[ServiceRow]]


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

    def __init__(self, row: ServiceRow) -> None:
        self.row = row


class Commands:
    """Carries mutations out. `show` makes the answer of a row; `wake` has a service's status looked at."""

    def __init__(
        self, store: Store, admission: Admission, answers: Answers, clock: Clock,
        show: Callable[[ServiceRow], services_pb2.Service], wake: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._admission, self._answers, self._clock = store, admission, answers, clock
        self._show, self._wake = show, wake

    async def create(self, call: Call, text: str) -> services_pb2.Service:
        """Admits and writes a new service; raises InvalidInput or AlreadyExists."""
        if (known := await self._known(call)) is not None:
            return known
        prepared = await self._admission.new(call.workspace, text)

        async def work(connection: Connection) -> ServiceRow:
            past = await self._store.past(connection, call.workspace, prepared.name)
            change = changes.created(prepared.content, workspace=call.workspace, name=prepared.name, uid=uuid7(),
                                     past=past, now=self._clock.now())  # fmt: skip
            if not await self._store.insert(connection, change.row):
                if await self._answers.find(connection, call.ticket) is not None:
                    raise Stale(prepared.name)  # the same request, at the same time: it has been answered by now
                raise await self._taken(call, prepared.name)
            await self._written(connection, call, None, change, prepared)
            return change.row

        return await self._again(call, work)

    async def update(self, call: Call, name: str, text: str, update_type: str) -> services_pb2.Service:
        """Lays a configuration over the stored one, or in its place; raises InvalidInput, NotFound, Conflict."""
        for _ in range(TRIES):
            if (known := await self._known(call)) is not None:
                return known
            seen = await self.existing(call.workspace, name)
            prepared = await self._admission.changed(seen, text, update_type)

            async def decide(
                row: ServiceRow, connection: Connection, seen: ServiceRow = seen, prepared: Prepared = prepared
            ) -> Change | None:
                if row.generation != seen.generation or row.uid != seen.uid:
                    raise Stale(name)
                newest = await revisions_count(connection, row)
                return changes.updated(row, prepared.content, newest, self._clock.now())

            try:
                return await self.change(call, name, decide, prepared, once=True)
            except Stale:
                continue
        raise _contended(name)

    async def change(
        self, call: Call, name: str, decide: Decide, prepared: Prepared | None = None, *, once: bool = False
    ) -> services_pb2.Service:
        """Changes an existing service as `decide` says; raises NotFound and what `decide` raises.

        `once`: raises Stale, too, instead of deciding again.
        """

        async def work(connection: Connection) -> ServiceRow:
            before = await self._store.get(call.workspace, plain(name), connection)
            if before is None:
                raise _unknown(name)
            change = await decide(before, connection)
            if change is None:
                return before
            if change.verb == "scaled":
                change = replace(change, row=self._admission.with_instance(change.row))
            await self._store.update(connection, change.row)
            await self._written(connection, call, before, change, prepared)
            return change.row

        return await (self._transact(call, work) if once else self._again(call, work))

    async def existing(self, workspace: str, name: str) -> ServiceRow:
        """The service; raises NotFound."""
        row = await self._store.get(workspace, plain(name))
        if row is None:
            raise _unknown(name)
        return row

    async def _again(self, call: Call, work: Work) -> services_pb2.Service:
        for _ in range(TRIES):
            try:
                return await self._transact(call, work)
            except Stale:
                continue
        raise Conflict("CHANGED_MEANWHILE", "others keep changing it at the same time", "try again")

    async def _transact(self, call: Call, work: Work) -> services_pb2.Service:
        try:
            async with self._store.database.transaction() as connection:
                await refuse_when_full(connection)
                if (found := await self._answers.find(connection, call.ticket)) is not None:
                    return services_pb2.Service.FromString(found)
                row = await work(connection)
                answer = self._show(row)
                if call.dry_run:
                    raise _DryRun(row)
                await self._answers.save(connection, call.ticket, answer.SerializeToString())
        except _DryRun as dry:
            return self._show(dry.row)
        self._wake(row.name)
        return answer

    async def _known(self, call: Call) -> services_pb2.Service | None:
        """What the same request was answered before."""
        if not call.ticket.key:
            return None
        async with self._store.database.transaction() as connection:
            found = await self._answers.find(connection, call.ticket)
        return None if found is None else services_pb2.Service.FromString(found)

    async def _written(
        self, connection: Connection, call: Call, before: ServiceRow | None, change: Change, prepared: Prepared | None
    ) -> None:
        """Everything that goes with a row that was written."""
        row = change.row
        if change.new_revision:
            assert prepared is not None
            await self._store.add_revision(connection, RevisionRow(
                workspace=row.workspace, name=row.name, number=row.revision.number, state="admitted",
                spec=row.revision, config_shown=row.config_shown,
                env_sealed=self._admission.seal_env(row, prepared.env), created_at=self._clock.now(),
            ))  # fmt: skip
        cause = Cause(actor=call.caller.actor, reason=change.reason, message=change.message)
        await self._store.tell(connection, row, change.verb, cause)
        await audit.record_service(connection, call.caller, call.action, before, row)

    async def _taken(self, call: Call, name: str) -> AlreadyExists:
        row = await self._store.get(call.workspace, name)
        if row is not None and row.wanted == "deleted":
            return AlreadyExists("NAME_TAKEN", f"a service {name} is still being deleted", "try again when it is gone")
        return AlreadyExists(
            "NAME_TAKEN", f"there is a service {name} already", f"`easel modify {name} -s FILE` changes it"
        )


def _unknown(name: str) -> NotFound:
    return NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")


def _contended(name: str) -> Conflict:
    return Conflict("CHANGED_MEANWHILE", f"others keep changing {name} at the same time", "try again")
