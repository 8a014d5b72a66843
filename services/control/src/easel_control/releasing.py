"""Mutations of what a service runs: restart, switch to another revision, pause, resume and revert of a rollout; and
copies and comparisons of revisions. Each looks at the world first, then decides and writes as commands.py does.
"""

from __future__ import annotations

import json

from easel_contracts.errors import FieldError, InvalidInput, NotFound, Refused
from easel_control.admission import Admission, Prepared
from easel_control.commands import Commands, Decide, contended, refuse_other
from easel_control.decide import releases
from easel_control.decide.diff import Difference, Side, differences
from easel_control.decide.mutation import Change, refuse_locked
from easel_control.decide.rollout import scene_of
from easel_control.decide.view import World, view_of
from easel_control.model import RevisionRow, ServiceRow
from easel_control.mutating import TRIES, Call
from easel_control.pages import plain
from easel_control.placement import Placement
from easel_control.store import Store
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection, Stale
from easel_proto.v1 import services_pb2

ACTIONS = ("pause", "resume", "revert")
NAMED_REVISIONS = 20


class Releases:
    """Carries them out."""

    def __init__(
        self, store: Store, admission: Admission, commands: Commands, placement: Placement, worlds: Worlds,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._store, self._admission, self._commands = store, admission, commands
        self._placement, self._worlds, self._clock = placement, worlds, clock

    async def restart(self, call: Call, name: str, *, allow_interruption: bool) -> services_pb2.Service:
        """Replaces every replica; raises NotFound, Conflict, Refused."""
        if (known := await self._commands.known(call)) is not None:
            return known
        seen = await self._commands.existing(call.workspace, name)
        refuse_locked(seen, call.action)
        if not allow_interruption:
            await self._placement.refuse_interruption(seen, seen.revision)

        async def decide(row: ServiceRow, connection: Connection) -> Change:
            return releases.restarted(row, self._clock.now(), interrupt=allow_interruption)

        return await self._commands.change(call, name, decide)

    async def switch(self, call: Call, name: str, number: int, *, allow_interruption: bool) -> services_pb2.Service:
        """Has another revision be the present one; raises NotFound, Conflict, Refused."""
        for _ in range(TRIES):
            if (known := await self._commands.known(call)) is not None:
                return known
            seen = await self._commands.existing(call.workspace, name)
            refuse_locked(seen, call.action)
            decide = await self.switching(seen, number, allow_interruption=allow_interruption)
            try:
                return await self._commands.change(call, name, decide, once=True)
            except Stale:
                continue
        raise contended(name)

    async def switching(self, seen: ServiceRow, number: int, *, allow_interruption: bool) -> Decide:
        """What a switch decides; the revision was looked up, its sources looked at again, and room was asked for. The
        decision raises Stale where the service is no longer as it was seen."""
        revision = await self._revision(seen, number)
        world = await self._worlds.of(seen.workspace, seen.name)
        warnings = await self._looked_again(seen, revision, world)
        if not allow_interruption and releases.needs_room(seen, number):
            await self._placement.refuse_interruption(seen, revision.spec)
        laid = self._admission.laid(seen, revision)

        async def decide(row: ServiceRow, connection: Connection) -> Change | None:
            refuse_other(row, seen)
            return releases.switched(row, revision.spec, laid, world, self._clock.now(), warnings=warnings,
                                     interrupt=allow_interruption)  # fmt: skip

        return decide

    async def change_rollout(self, call: Call, name: str, action: str) -> services_pb2.Service:
        """Pauses, resumes or reverts the rollout that is on; raises InvalidInput, NotFound, Conflict."""
        if action not in ACTIONS:
            raise InvalidInput(f"action {plain(action)!r} is not allowed; {', '.join(ACTIONS)} is")
        actor, failing = call.caller.actor, await self.failing(call.workspace, name)

        async def decide(row: ServiceRow, connection: Connection) -> Change | None:
            now = self._clock.now()
            if action == "pause":
                return releases.paused(row, actor, now)
            if action == "resume":
                return releases.resumed(row, failing, actor, now)
            if row.rollout is None:
                raise releases.no_rollout(row)
            stable = await self._store.revision(row.workspace, row.name, row.rollout.stable.number, connection)
            assert stable is not None, "the stable revision of a rollout is never pruned"
            laid = self._admission.laid(row, stable)
            return releases.taken_back(row, laid, "RevertAsked", f"{actor} reverted the rollout", now)

        return await self._commands.change(call, name, decide)

    async def failing(self, workspace: str, name: str) -> tuple[str, ...]:
        """Replicas of the present revision that have failed by now."""
        row = await self._commands.existing(workspace, name)
        world = await self._worlds.of(workspace, row.name)
        return tuple(r.id for r in scene_of(view_of(row, world), world.now).failing)

    async def clone(self, call: Call, name: str, new_name: str, text: str) -> services_pb2.Service:
        """A new service with another's configuration and environment, and a token of its own."""

        async def prepare() -> Prepared:
            row = await self._commands.existing(call.workspace, name)
            return await self._admission.cloned(row, plain(new_name), text)

        return await self._commands.create(call, prepare)

    async def diff(self, workspace: str, name: str, base: int, other: int) -> list[Difference]:
        """What differs between two revisions; raises NotFound."""
        row = await self._commands.existing(workspace, name)
        before, after = await self._revision(row, base), await self._revision(row, other)
        return differences(self._side(before), self._side(after))

    def _side(self, revision: RevisionRow) -> Side:
        return Side(
            config=json.loads(revision.config_shown), secrets=self._admission.secrets_of(revision),
            sources=revision.spec.sources,
        )  # fmt: skip

    async def _revision(self, row: ServiceRow, number: int) -> RevisionRow:
        """A revision that is kept; raises NotFound with those that are."""
        revision = await self._store.revision(row.workspace, row.name, number) if 0 < number < 2**31 else None
        if revision is None:
            kept = [r.number for r in await self._store.revisions(row.workspace, row.name)]
            shown = ", ".join(str(n) for n in kept[-NAMED_REVISIONS:])
            older = f" and {len(kept) - NAMED_REVISIONS} older ones" if len(kept) > NAMED_REVISIONS else ""
            what = "is not kept any more" if 0 < number < row.latest else "has never been"
            raise NotFound("NO_SUCH_REVISION", f"revision {number} of {row.name} {what}; there are {shown}{older}",
                           f"`easel revisions {row.name}` lists them")  # fmt: skip
        return revision

    async def _looked_again(self, row: ServiceRow, revision: RevisionRow, world: World) -> tuple[str, ...]:
        """What may differ from when the revision was admitted. Raises Refused where a replica of it could not start."""
        warnings, gone = await self._admission.looked_again(revision)
        told = tuple(f"{e.path}: {e.message}" for e in gone)
        if gone and not any(r.revision == revision.number and r.state != "draining" for r in world.replicas):
            raise _cannot_run(row, revision, gone)
        return (*warnings, *told)


def _cannot_run(row: ServiceRow, revision: RevisionRow, gone: tuple[FieldError, ...]) -> Refused:
    told = "; ".join(f"{e.path}: {e.message}" for e in gone)
    hint = gone[0].hint or f"`easel modify {row.name}` makes a new revision"
    return Refused("SOURCE_MISSING", f"revision {revision.number} of {row.name} could not start: {told}", hint)
