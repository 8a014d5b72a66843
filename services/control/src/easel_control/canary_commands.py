"""What people ask of canaries: start, promote, pause, resume, step, abort. The change of the service or group, the
canary, the audit record and the answer go into one transaction, or none of them does."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from easel_contracts.errors import Conflict, FieldError, InvalidInput
from easel_contracts.ids import uuid7
from easel_control.admission import Prepared
from easel_control.canary_store import CanaryStore, is_on
from easel_control.canary_views import canary_view
from easel_control.commands import Commands, Decide, contended
from easel_control.decide import canary_group, canary_rollout
from easel_control.decide.canary import Canary, told
from easel_control.decide.canary_hands import HANDS
from easel_control.decide.canary_plan import Plan
from easel_control.decide.groups import GroupChange
from easel_control.decide.groups import unknown as unknown_group
from easel_control.decide.mutation import Change, moved, raised, refuse_locked
from easel_control.group_store import GroupStore
from easel_control.memberships import record_group
from easel_control.model import GroupRow, ServiceRow
from easel_control.mutating import TRIES, Call, Mutations
from easel_control.pages import plain
from easel_control.releasing import Releases
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_proto.v1 import canaries_pb2


class CanaryCommands:
    """Carries them out. `wake` has a canary looked at, `wake_service` a service's status."""

    def __init__(
        self, canaries: CanaryStore, groups: GroupStore, commands: Commands, releases: Releases, mutations: Mutations,
        clock: Clock, wake: Callable[[str], None], wake_service: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._canaries, self._groups, self._commands, self._releases = canaries, groups, commands, releases
        self._mutations, self._clock = mutations, clock
        self._wake, self._wake_service = wake, wake_service

    async def start(self, call: Call, request: canaries_pb2.StartCanaryRequest, plan: Plan) -> canaries_pb2.Canary:
        """Begins one. Of a service: with a new configuration, with a revision there has been, or of the rollout that is
        on; of a group: with the member that is to take over. Raises InvalidInput, NotFound, Conflict; Refused where a
        new replica finds no room."""
        group = await self._groups.get(call.workspace, plain(request.name))
        _refuse_mixed(request, group)
        if request.candidate:
            return await self._start_group(call, request, plan)
        for _ in range(TRIES):
            if (known := await self._mutations.known(call, canaries_pb2.Canary)) is not None:
                return known
            seen = await self._commands.existing(call.workspace, request.name)
            refuse_locked(seen, call.action)
            _refuse_second(seen)
            brings, prepared = await self._brings(seen, request)
            try:
                return await self._start_service(call, request.name, plan, brings, prepared)
            except Stale:
                continue
        raise contended(request.name)

    async def change(self, call: Call, name: str, action: str) -> canaries_pb2.Canary:
        """promote, pause, resume, step or abort; raises InvalidInput, NotFound, Conflict."""
        if action not in HANDS:
            raise InvalidInput(f"action {plain(action)!r} is not allowed; {', '.join(HANDS)} is")
        if await self._groups.get(call.workspace, plain(name)) is not None:
            return await self._change_group(call, name, action)
        failing = await self._releases.failing(call.workspace, name)

        async def work(connection: Connection) -> canaries_pb2.Canary:
            seen: list[Canary] = []

            async def decide(row: ServiceRow, connection: Connection) -> Change | None:
                before = await self._canaries.on(row.workspace, row.name, connection)
                if before is None or not canary_rollout.is_of(row, before):
                    raise _none_is_on(row.name)
                now = self._clock.now()
                canary = _by_hand(before, action, call, self._clock)
                seen.append(canary)
                if canary == before:
                    return None
                after = replace(raised(row, now), rollout=canary_rollout.goes_on(row, canary, failing))
                return Change(row=moved(after, "Updating", "Canary", told(canary)), verb="rollout_changed",
                              reason=canary.reason, message=canary.message)  # fmt: skip

            done = await self._commands.changed(connection, call, name, decide)
            return await self._kept(connection, seen[0], is_changed=done.is_changed)

        return self._woken(await self._mutations.run(call, canaries_pb2.Canary, work))

    async def _change_group(self, call: Call, name: str, action: str) -> canaries_pb2.Canary:
        async def work(connection: Connection) -> canaries_pb2.Canary:
            row = await self._groups.get(call.workspace, plain(name), connection)
            if row is None:
                raise unknown_group(name)
            before = await self._canaries.on(call.workspace, row.name, connection)
            if before is None or not canary_group.is_of(row, before):
                raise _none_is_on(row.name)
            canary = _by_hand(before, action, call, self._clock)
            if canary != before:
                await self._write_group(connection, call, row, canary_group.goes_on(row, canary, self._clock.now()))
            return await self._kept(connection, canary, is_changed=canary != before)

        return self._woken(await self._mutations.run(call, canaries_pb2.Canary, work))

    async def _kept(self, connection: Connection, canary: Canary, *, is_changed: bool) -> canaries_pb2.Canary:
        if is_changed:
            await self._canaries.update(connection, canary)
        return canary_view(canary)

    async def _brings(
        self, seen: ServiceRow, request: canaries_pb2.StartCanaryRequest
    ) -> tuple[Decide, Prepared | None]:
        """What brings the candidate."""
        allow = request.allow_interruption
        if request.config:
            update_type = request.update_type or "merge"
            return await self._commands.updating(seen, request.config, update_type, allow_interruption=allow)
        if request.revision:
            return await self._releases.switching(seen, request.revision, allow_interruption=allow), None

        async def adopts(row: ServiceRow, connection: Connection) -> Change:
            return canary_rollout.adopted(row, self._clock.now())

        return adopts, None

    async def _start_service(
        self, call: Call, name: str, plan: Plan, brings: Decide, prepared: Prepared | None
    ) -> canaries_pb2.Canary:
        """The change that brings the candidate, with requests split from its first moment on."""

        async def work(connection: Connection) -> canaries_pb2.Canary:
            made: list[Canary] = []

            async def decide(row: ServiceRow, connection: Connection) -> Change:
                _refuse_second(row)
                group = await self._groups.get(row.workspace, row.group, connection) if row.group else None
                if group is not None and group.split is not None:
                    raise _of_the_group(row, group)
                change = await brings(row, connection)
                if change is None:
                    raise canary_rollout.nothing_to_compare(row)
                after, canary = canary_rollout.begun(change.row, plan, uuid7(), call.caller.actor, self._clock.now())
                made.append(canary)
                return replace(change, row=after)

            done = await self._commands.changed(connection, call, name, decide, prepared)
            await self._canaries.insert(connection, made[0])
            view = canary_view(made[0])
            view.warnings.extend(done.warnings)
            return view

        return self._woken(await self._mutations.once(call, canaries_pb2.Canary, work))

    async def _start_group(
        self, call: Call, request: canaries_pb2.StartCanaryRequest, plan: Plan
    ) -> canaries_pb2.Canary:
        async def work(connection: Connection) -> canaries_pb2.Canary:
            row = await self._groups.get(call.workspace, plain(request.name), connection)
            if row is None:
                raise unknown_group(request.name)
            if row.split is not None:
                raise is_on(row.name)
            members = [member.service for member in row.members]
            if member := await self._canaries.any_on(call.workspace, members, connection):
                raise Conflict("CANARY_ON", f"a canary of {member} is on, which is a member of {row.name}",
                               f"`easel canary promote {member}` or `easel canary abort {member}` first")  # fmt: skip
            change, canary = canary_group.begun(
                row, plain(request.candidate), plan, uuid7(), call.caller.actor, self._clock.now()
            )
            await self._write_group(connection, call, row, change)
            await self._canaries.insert(connection, canary)
            return canary_view(canary)

        return self._woken(await self._mutations.run(call, canaries_pb2.Canary, work))

    async def _write_group(self, connection: Connection, call: Call, before: GroupRow, change: GroupChange) -> None:
        await self._groups.write(connection, change, call.caller.actor)
        await record_group(connection, call.caller, call.action, before, change)

    def _woken(self, answer: canaries_pb2.Canary) -> canaries_pb2.Canary:
        self._wake(answer.name)
        if answer.kind == "service":
            self._wake_service(answer.name)
        return answer


def _by_hand(before: Canary, action: str, call: Call, clock: Clock) -> Canary:
    """The canary after somebody's action, one version on; the same where it is so already."""
    move = HANDS[action](before, call.caller.actor, clock.now())
    return before if move is None else replace(move.canary, row_version=before.row_version + 1)


def _refuse_mixed(request: canaries_pb2.StartCanaryRequest, group: GroupRow | None) -> None:
    """Raises InvalidInput where a request says two things at once, or of a group not who is to take over."""
    if request.config and request.revision:
        raise _wrong("revision", "`config` is given, too: either says what is to take over")
    if request.candidate and (request.config or request.revision):
        raise _wrong("candidate", "it is for groups; of a service `config` or `revision` says what is to take over")
    if group is not None and not request.candidate:
        names = ", ".join(member.service for member in group.members)
        raise _wrong("candidate", f"{group.name} is a group: say which member is to take over; {names} are")


def _wrong(path: str, message: str) -> InvalidInput:
    return InvalidInput(
        f"the canary cannot be started: {path}: {message}", (FieldError(path=path, code="CONFLICT", message=message),)
    )


def _refuse_second(row: ServiceRow) -> None:
    if row.rollout is not None and row.rollout.split is not None:
        raise is_on(row.name)


def _of_the_group(row: ServiceRow, group: GroupRow) -> Conflict:
    return Conflict("CANARY_ON", f"a canary of the group {group.name} is on, and {row.name} is a member",
                    f"`easel canary promote {group.name}` or `easel canary abort {group.name}` first")  # fmt: skip


def _none_is_on(name: str) -> Conflict:
    return Conflict("NO_CANARY", f"no canary of {name} is on", f"`easel canary start {name} -s FILE` starts one")
