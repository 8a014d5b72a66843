"""Mutations: load, decide, write. Row, fact, audit record and answer go into one transaction, or none of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import AlreadyExists, Conflict
from easel_contracts.facts import Cause
from easel_contracts.ids import uuid7
from easel_control import audit
from easel_control.admission import Admission, Prepared, revisions_count
from easel_control.decide import change as changes
from easel_control.decide.canary_rollout import refuse_under_canary
from easel_control.decide.mutation import Change, refuse_locked, unknown_service
from easel_control.memberships import Memberships
from easel_control.model import RevisionRow, ServiceRow
from easel_control.mutating import TRIES, Call, Mutations
from easel_control.pages import plain
from easel_control.placement import Placement
from easel_control.store import Store
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_proto.v1 import services_pb2

Decide = Callable[[ServiceRow, Connection], Awaitable[Change | None]]
Show = Callable[[Sequence[ServiceRow], Connection], Awaitable[list[services_pb2.Service]]]
Work = Callable[[Connection], Awaitable["Done"]]


class Done(Struct, frozen=True):
    """What a mutation came to."""

    row: ServiceRow
    warnings: tuple[str, ...] = ()
    is_changed: bool = True


class Commands:
    """Carries mutations out. `show` makes the answer of a row; `wake` has a service's status looked at."""

    def __init__(
        self, store: Store, admission: Admission, mutations: Mutations, memberships: Memberships, placement: Placement,
        clock: Clock, show: Show, wake: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._admission, self._mutations, self._clock = store, admission, mutations, clock
        self._memberships, self._placement, self._show, self._wake = memberships, placement, show, wake

    async def create(self, call: Call, prepare: Callable[[], Awaitable[Prepared]]) -> services_pb2.Service:
        """Writes a new service as `prepare` admits it; raises InvalidInput or AlreadyExists."""
        if (known := await self.known(call)) is not None:
            return known
        prepared = await prepare()

        async def work(connection: Connection) -> Done:
            await self._memberships.claim(connection, call.workspace, prepared.name, prepared.content.group)
            past = await self._store.past(connection, call.workspace, prepared.name)
            change = changes.created(prepared.content, workspace=call.workspace, name=prepared.name, uid=uuid7(),
                                     past=past, now=self._clock.now())  # fmt: skip
            if not await self._store.insert(connection, change.row):
                raise await self._taken(call, prepared.name)
            await self._written(connection, call, None, change, prepared)
            return Done(change.row)

        return await self._again(call, work)

    async def update(
        self, call: Call, name: str, text: str, update_type: str, *, allow_interruption: bool
    ) -> services_pb2.Service:
        """Lays a configuration over the stored one, or in its place.

        Raises InvalidInput, NotFound, Conflict; Refused where it would interrupt and that was not allowed.
        """
        for _ in range(TRIES):
            if (known := await self.known(call)) is not None:
                return known
            seen = await self.existing(call.workspace, name)
            refuse_locked(seen, call.action)
            decide, prepared = await self.updating(seen, text, update_type, allow_interruption=allow_interruption)
            try:
                return await self.change(call, name, decide, prepared, once=True)
            except Stale:
                continue
        raise contended(name)

    async def updating(
        self, seen: ServiceRow, text: str, update_type: str, *, allow_interruption: bool
    ) -> tuple[Decide, Prepared]:
        """What an update decides, and what it has to write; the configuration is admitted and room was asked for. The
        decision raises Stale where the service is no longer as it was seen."""
        prepared = await self._admission.changed(seen, text, update_type)
        content, now = prepared.content, self._clock.now()
        change = changes.updated(seen, content, seen.latest, now, interrupt=allow_interruption)
        if change is not None and change.new_revision and not allow_interruption:
            await self._placement.refuse_interruption(seen, change.row.revision)

        async def decide(row: ServiceRow, connection: Connection) -> Change | None:
            refuse_other(row, seen)
            newest = max(row.latest, await revisions_count(connection, row))
            return changes.updated(row, content, newest, self._clock.now(), interrupt=allow_interruption)

        return decide, prepared

    async def change(
        self, call: Call, name: str, decide: Decide, prepared: Prepared | None = None, *, once: bool = False
    ) -> services_pb2.Service:
        """Changes an existing service as `decide` says; raises NotFound and what `decide` raises.

        `once`: raises Stale, too, instead of deciding again.
        """

        async def work(connection: Connection) -> Done:
            return await self.changed(connection, call, name, decide, prepared)

        return await (self._transact(call, work) if once else self._again(call, work))

    async def changed(
        self, connection: Connection, call: Call, name: str, decide: Decide, prepared: Prepared | None = None
    ) -> Done:
        """`change` within the caller's transaction."""
        before = await self._store.get(call.workspace, plain(name), connection)
        if before is None:
            raise unknown_service(name)
        refuse_locked(before, call.action)
        change = await decide(before, connection)
        if change is None:
            return Done(before, is_changed=False)
        refuse_under_canary(before, change, call.action)
        if change.verb == "scaled":
            change = replace(change, row=self._admission.with_instance(change.row))
        await self._store.update(connection, change.row)
        await self._written(connection, call, before, change, prepared)
        return Done(change.row, change.warnings)

    async def existing(self, workspace: str, name: str) -> ServiceRow:
        """The service; raises NotFound."""
        row = await self._store.get(workspace, plain(name))
        if row is None:
            raise unknown_service(name)
        return row

    async def _again(self, call: Call, work: Work) -> services_pb2.Service:
        return self._woken(call, await self._mutations.run(call, services_pb2.Service, self._answered(work)))

    async def _transact(self, call: Call, work: Work) -> services_pb2.Service:
        return self._woken(call, await self._mutations.once(call, services_pb2.Service, self._answered(work)))

    def _answered(self, work: Work) -> Callable[[Connection], Awaitable[services_pb2.Service]]:
        async def answered(connection: Connection) -> services_pb2.Service:
            done = await work(connection)
            [answer] = await self._show([done.row], connection)
            answer.warnings.extend(done.warnings)
            return answer

        return answered

    def _woken(self, call: Call, answer: services_pb2.Service) -> services_pb2.Service:
        if not call.dry_run:
            self._wake(answer.service_name)
        return answer

    async def known(self, call: Call) -> services_pb2.Service | None:
        """What the same request was answered before."""
        return await self._mutations.known(call, services_pb2.Service)

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
                env_sealed=self._admission.seal_secrets(row, prepared.secrets), created_at=self._clock.now(),
            ))  # fmt: skip
        if change.given_up:
            await self._store.give_up(connection, row.workspace, row.name, change.given_up)
        cause = Cause(actor=call.caller.actor, reason=change.reason, message=change.message)
        await self._store.tell(connection, row, change.verb, cause)
        await audit.record_service(connection, call.caller, call.action, before, row)
        await self._memberships.follow(connection, call.caller, call.action, before, row)

    async def _taken(self, call: Call, name: str) -> AlreadyExists:
        row = await self._store.get(call.workspace, name)
        if row is not None and row.wanted == "deleted":
            return AlreadyExists("NAME_TAKEN", f"a service {name} is still being deleted", "try again when it is gone")
        return AlreadyExists(
            "NAME_TAKEN", f"there is a service {name} already", f"`easel modify {name} -s FILE` changes it"
        )


def refuse_other(row: ServiceRow, seen: ServiceRow) -> None:
    """Raises Stale where the row is no longer the one that was looked at before the transaction."""
    if row.generation != seen.generation or row.uid != seen.uid:
        raise Stale(row.name)


def contended(name: str) -> Conflict:
    """The error after TRIES rounds against others."""
    return Conflict("CHANGED_MEANWHILE", f"others keep changing {name} at the same time", "try again")
