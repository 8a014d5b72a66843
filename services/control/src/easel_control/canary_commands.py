"""What people ask of canaries: start, promote, pause, resume, step, abort. The change of the service, the canary, the
audit record and the answer go into one transaction, or none of them does."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from easel_contracts.errors import Conflict, FieldError, InvalidInput
from easel_contracts.ids import uuid7
from easel_control.admission import Prepared
from easel_control.canary_store import CanaryStore, is_on
from easel_control.canary_views import canary_view
from easel_control.commands import Commands, Decide, contended
from easel_control.decide import canary_rollout
from easel_control.decide.canary import Canary, told
from easel_control.decide.canary_hands import HANDS
from easel_control.decide.canary_plan import Plan
from easel_control.decide.mutation import Change, moved, raised, refuse_locked
from easel_control.model import ServiceRow
from easel_control.mutating import TRIES, Call, Mutations
from easel_control.pages import plain
from easel_control.releasing import Releases
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_proto.v1 import canaries_pb2


class CanaryCommands:
    """Carries them out. `wake` has a canary looked at, `wake_service` a service's status."""

    def __init__(
        self, canaries: CanaryStore, commands: Commands, releases: Releases, mutations: Mutations, clock: Clock,
        wake: Callable[[str], None], wake_service: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._canaries, self._commands, self._releases = canaries, commands, releases
        self._mutations, self._clock = mutations, clock
        self._wake, self._wake_service = wake, wake_service

    async def start(self, call: Call, request: canaries_pb2.StartCanaryRequest, plan: Plan) -> canaries_pb2.Canary:
        """Begins one of a service: with a new configuration, with a revision there has been, or of the rollout that is
        on. Raises InvalidInput, NotFound, Conflict; Refused where a new replica finds no room."""
        if request.config and request.revision:
            raise InvalidInput("either config or revision says what is to take over", (FieldError(
                path="revision", code="CONFLICT", message="`config` is given, too"),))  # fmt: skip
        for _ in range(TRIES):
            if (known := await self._mutations.known(call, canaries_pb2.Canary)) is not None:
                return known
            seen = await self._commands.existing(call.workspace, request.name)
            refuse_locked(seen, call.action)
            _refuse_second(seen)
            brings, prepared = await self._brings(seen, request)
            try:
                return await self._begin(call, request.name, plan, brings, prepared)
            except Stale:
                continue
        raise contended(request.name)

    async def change(self, call: Call, name: str, action: str) -> canaries_pb2.Canary:
        """promote, pause, resume, step or abort; raises InvalidInput, NotFound, Conflict."""
        if action not in HANDS:
            raise InvalidInput(f"action {plain(action)!r} is not allowed; {', '.join(HANDS)} is")
        failing = await self._releases.failing(call.workspace, name)

        async def work(connection: Connection) -> canaries_pb2.Canary:
            seen: list[Canary] = []

            async def decide(row: ServiceRow, connection: Connection) -> Change | None:
                before = await self._canaries.on(row.workspace, row.name, connection)
                if before is None or not canary_rollout.is_of(row, before):
                    raise _none_is_on(row.name)
                seen.append(before)
                now = self._clock.now()
                move = HANDS[action](before, call.caller.actor, now)
                if move is None:
                    return None
                canary = replace(move.canary, row_version=before.row_version + 1)
                seen.append(canary)
                after = replace(raised(row, now), rollout=canary_rollout.goes_on(row, canary, failing))
                return Change(row=moved(after, "Updating", "Canary", told(canary)), verb="rollout_changed",
                              reason=canary.reason, message=canary.message)  # fmt: skip

            await self._commands.changed(connection, call, name, decide)
            if len(seen) > 1:
                await self._canaries.update(connection, seen[-1])
            return canary_view(seen[-1])

        return self._woken(await self._mutations.run(call, canaries_pb2.Canary, work))

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

    async def _begin(
        self, call: Call, name: str, plan: Plan, brings: Decide, prepared: Prepared | None
    ) -> canaries_pb2.Canary:
        """The change that brings the candidate, with requests split from its first moment on."""

        async def work(connection: Connection) -> canaries_pb2.Canary:
            made: list[Canary] = []

            async def decide(row: ServiceRow, connection: Connection) -> Change:
                _refuse_second(row)
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

    def _woken(self, answer: canaries_pb2.Canary) -> canaries_pb2.Canary:
        self._wake(answer.name)
        self._wake_service(answer.name)
        return answer


def _refuse_second(row: ServiceRow) -> None:
    if row.rollout is not None and row.rollout.split is not None:
        raise is_on(row.name)


def _none_is_on(name: str) -> Conflict:
    return Conflict("NO_CANARY", f"no canary of {name} is on", f"`easel canary start {name} -s FILE` starts one")
