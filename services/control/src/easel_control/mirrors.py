"""Carries out decide/mirroring.py, and easel.v1.Mirrors. A target that is deleted is taken out of all settings."""

from __future__ import annotations

from easel_contracts.errors import NotFound
from easel_contracts.facts import Cause
from easel_contracts.ids import uuid7
from easel_contracts.spec import CANDIDATE, Mirroring
from easel_control import audit
from easel_control.decide.mirroring import (
    CompareAsked,
    MirrorAsked,
    mirrored,
    settings_of,
    unmirrored,
    warnings,
    without_target,
)
from easel_control.decide.mutation import Change, refuse_locked, unknown_service
from easel_control.model import ServiceRow
from easel_control.mutating import Call, Mutations
from easel_control.pages import plain, workspace_of
from easel_control.store import Store
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.grpc import Caller
from easel_proto.v1 import mirrors_pb2, mirrors_pb2_grpc


class MirrorsApi(mirrors_pb2_grpc.MirrorsServicer):
    """Who gets copies of a service's requests."""

    def __init__(self, workspace: str, store: Store, mutations: Mutations, clock: Clock) -> None:
        self._workspace, self._store, self._mutations, self._clock = workspace, store, mutations, clock

    async def Get(self, request: mirrors_pb2.GetMirrorRequest, context: object) -> mirrors_pb2.Mirror:
        """The settings, with what they cost."""
        workspace = workspace_of(request.workspace, self._workspace)
        row = await self._store.get(workspace, plain(request.name))
        if row is None:
            raise unknown_service(request.name)
        mirroring = _existing(row)
        names = [t for t in mirroring.targets if t != CANDIDATE]
        others = {r.name: r for r in await self._store.some(workspace, names)} if names else {}
        return mirror_view(row.name, mirroring, warnings(row, mirroring, others))

    async def Set(self, request: mirrors_pb2.SetMirrorRequest, context: object) -> mirrors_pb2.Mirror:
        """New settings, in the place of those there are."""
        call, asked = self._mutations.call("Mirrors.Set", request), _asked(request)

        async def work(connection: Connection) -> mirrors_pb2.Mirror:
            rows = await self._locked(connection, call.workspace, {plain(request.name), *asked.services})
            row = rows.pop(request.name, None)
            if row is None:
                raise unknown_service(request.name)
            refuse_locked(row, call.action)
            mirroring = settings_of(row.name, asked, rows)
            await self._write(connection, call, row, mirrored(row, mirroring, self._clock.now()))
            return mirror_view(row.name, mirroring, warnings(row, mirroring, rows))

        return await self._mutations.run(call, mirrors_pb2.Mirror, work)

    async def Delete(self, request: mirrors_pb2.DeleteMirrorRequest, context: object) -> mirrors_pb2.Mirror:
        """No more copies; answers the settings as they were."""
        call = self._mutations.call("Mirrors.Delete", request)

        async def work(connection: Connection) -> mirrors_pb2.Mirror:
            row = await self._store.get(call.workspace, plain(request.name), connection)
            if row is None:
                raise unknown_service(request.name)
            refuse_locked(row, call.action)
            before = _existing(row)
            await self._write(connection, call, row, unmirrored(row, self._clock.now()))
            return mirror_view(row.name, before, ())

        return await self._mutations.run(call, mirrors_pb2.Mirror, work)

    async def _locked(self, connection: Connection, workspace: str, names: set[str]) -> dict[str, ServiceRow]:
        """Those that exist, locked: two that are set to mirror each other at the same time see one another. In the
        order of their names, so that neither waits for the other."""
        found = [await self._store.get(workspace, name, connection) for name in sorted(names)]
        return {row.name: row for row in found if row is not None}

    async def _write(self, connection: Connection, call: Call, before: ServiceRow, change: Change | None) -> None:
        if change is None:
            return
        await self._store.update(connection, change.row)
        cause = Cause(actor=call.caller.actor, reason=change.reason, message=change.message)
        await self._store.tell(connection, change.row, change.verb, cause)
        await audit.record_service(connection, call.caller, call.action, before, change.row)


async def drop_target(store: Store, clock: Clock, gone: ServiceRow) -> None:
    """Takes a service that is being deleted out of the settings of those that mirror to it. Nobody can name it as a
    target any more, so once is enough; again does nothing. Raises Stale."""
    for name in await store.mirroring_to(gone.workspace, gone.name):
        async with store.database.transaction() as connection:
            row = await store.get(gone.workspace, name, connection)
            change = None if row is None else without_target(row, gone.name, clock.now())
            if row is None or change is None:
                continue
            await store.update(connection, change.row)
            cause = Cause(actor="control", reason=change.reason, message=change.message)
            await store.tell(connection, change.row, change.verb, cause)
            who = Caller("control", "local", uuid7())
            await audit.record_service(connection, who, "Mirrors.DropTarget", row, change.row)


def mirror_view(name: str, mirroring: Mirroring, warned: tuple[str, ...]) -> mirrors_pb2.Mirror:
    """The settings as the API shows them."""
    view = mirrors_pb2.Mirror(name=name, targets=mirroring.targets, percent=mirroring.percent, warnings=warned)
    if (c := mirroring.compare) is not None:
        view.compare.CopyFrom(mirrors_pb2.CompareOptions(
            samples_per_s=c.samples_per_s, twice_percent=c.twice_percent, body_kib=c.body_kib, tolerance=c.tolerance,
            ignore=c.ignore, text_similarity=c.text_similarity, no_side_effects=True,
        ))  # fmt: skip
    return view


def _asked(request: mirrors_pb2.SetMirrorRequest) -> MirrorAsked:
    compare = None
    if request.HasField("compare"):
        c = request.compare
        compare = CompareAsked(
            samples_per_s=c.samples_per_s, twice_percent=c.twice_percent, body_kib=c.body_kib, tolerance=c.tolerance,
            ignore=tuple(c.ignore), text_similarity=c.text_similarity, no_side_effects=c.no_side_effects,
        )  # fmt: skip
    return MirrorAsked(targets=tuple(request.targets), percent=request.percent, compare=compare)


def _existing(row: ServiceRow) -> Mirroring:
    if row.mirroring is None:
        raise NotFound("NO_MIRROR", f"requests of {row.name} are not mirrored",
                       f"`easel mirror {row.name} --target OTHER --ratio 10` has them copied")  # fmt: skip
    return row.mirroring
