"""easel.v1.Services: requests to commands and rows to answers. Decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from importlib.metadata import version
from typing import Any

from easel_contracts.errors import InvalidInput
from easel_control import audit
from easel_control.admission import Admission
from easel_control.canary_store import CanaryStore
from easel_control.commands import Commands, Decide
from easel_control.decide import change as changes
from easel_control.decide.explain import explain
from easel_control.decide.mutation import Change
from easel_control.decide.schema import schema_text
from easel_control.model import ServiceRow
from easel_control.mutating import Call, Mutations
from easel_control.pages import page_size, plain, workspace_of
from easel_control.releasing import Releases
from easel_control.settings import Settings
from easel_control.showing import ServiceViews
from easel_control.store import Store
from easel_control.uploads import CodeStore
from easel_control.views import revision_view
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.grpc import caller
from easel_proto.v1 import common_pb2, services_pb2, services_pb2_grpc


class ServicesApi(services_pb2_grpc.ServicesServicer):
    """The public face of control."""

    def __init__(
        self, settings: Settings, store: Store, admission: Admission, views: ServiceViews, commands: Commands,
        releases: Releases, canaries: CanaryStore, mutations: Mutations, code: CodeStore, worlds: Worlds, clock: Clock,
    ) -> None:  # fmt: skip
        self._settings, self._store, self._admission, self._views = settings, store, admission, views
        self._commands, self._releases, self._canaries, self._mutations = commands, releases, canaries, mutations
        self._code, self._worlds, self._clock = code, worlds, clock

    async def GetInfo(self, request: services_pb2.GetInfoRequest, context: object) -> services_pb2.Info:
        """What this platform is."""
        s = self._settings
        return services_pb2.Info(
            version=version("easel-serving-control"), workspace=s.workspace, data_url=s.data_url, host_id=s.host_id,
            mode=s.mode,
        )  # fmt: skip

    async def Create(self, request: services_pb2.CreateServiceRequest, context: object) -> services_pb2.Service:
        """Admits a service.json."""
        call = self._call("Create", request, dry_run=request.dry_run)
        return await self._commands.create(call, lambda: self._admission.new(call.workspace, request.config))

    async def Get(self, request: services_pb2.GetServiceRequest, context: object) -> services_pb2.Service:
        """One service."""
        row = await self._commands.existing(self._workspace(request.workspace), request.name)
        [answer] = await self._views.shown([row])
        return answer

    async def List(
        self, request: services_pb2.ListServicesRequest, context: object
    ) -> services_pb2.ListServicesResponse:
        """Services by name."""
        size = page_size(request.page_size)
        rows = await self._store.page(self._workspace(request.workspace), plain(request.page_token), size + 1)
        answer = services_pb2.ListServicesResponse(services=await self._views.shown(rows[:size]))
        if len(rows) > size:
            answer.next_page_token = rows[size - 1].name
        return answer

    async def Update(self, request: services_pb2.UpdateServiceRequest, context: object) -> services_pb2.Service:
        """A new configuration, by merge or replace."""
        call = self._call("Update", request, dry_run=request.dry_run)
        return await self._commands.update(
            call, request.name, request.config, request.update_type or "merge",
            allow_interruption=request.allow_interruption,
        )  # fmt: skip

    async def Delete(self, request: services_pb2.DeleteServiceRequest, context: object) -> services_pb2.Service:
        """Ends a service for good."""
        return await self._simple("Delete", request, changes.deleted)

    async def Start(self, request: services_pb2.StartServiceRequest, context: object) -> services_pb2.Service:
        """Starts a stopped service."""
        return await self._simple("Start", request, changes.started)

    async def Stop(self, request: services_pb2.StopServiceRequest, context: object) -> services_pb2.Service:
        """Ends all replicas; the service stays."""
        return await self._simple("Stop", request, changes.stopped)

    async def Restart(self, request: services_pb2.RestartServiceRequest, context: object) -> services_pb2.Service:
        """Replaces every replica."""
        return await self._releases.restart(
            self._call("Restart", request), request.name, allow_interruption=request.allow_interruption
        )

    async def Scale(self, request: services_pb2.ScaleServiceRequest, context: object) -> services_pb2.Service:
        """Another number of replicas."""
        instance = request.instance
        return await self._simple("Scale", request, lambda row, now: changes.scaled(row, instance, now))

    async def SwitchRevision(
        self, request: services_pb2.SwitchRevisionRequest, context: object
    ) -> services_pb2.Service:
        """Back, or on, to another revision."""
        call = self._call("SwitchRevision", request)
        return await self._releases.switch(
            call, request.name, request.revision, allow_interruption=request.allow_interruption
        )

    async def ChangeRollout(self, request: services_pb2.ChangeRolloutRequest, context: object) -> services_pb2.Service:
        """Pauses, resumes or reverts a rollout."""
        return await self._releases.change_rollout(self._call("ChangeRollout", request), request.name, request.action)

    async def Clone(self, request: services_pb2.CloneServiceRequest, context: object) -> services_pb2.Service:
        """A copy under another name."""
        return await self._releases.clone(self._call("Clone", request), request.name, request.new_name, request.config)

    async def Lock(self, request: services_pb2.LockServiceRequest, context: object) -> services_pb2.Service:
        """Refuses what ends a service, or every change."""
        lock = request.lock
        return await self._simple("Lock", request, lambda row, now: changes.locked(row, lock, now))

    async def DiffRevisions(
        self, request: services_pb2.DiffRevisionsRequest, context: object
    ) -> services_pb2.DiffRevisionsResponse:
        """What differs between two revisions."""
        workspace = self._workspace(request.workspace)
        found = await self._releases.diff(workspace, request.name, request.base, request.other)
        return services_pb2.DiffRevisionsResponse(
            differences=[services_pb2.Difference(path=d.path, before=d.before, after=d.after) for d in found]
        )

    async def ListRevisions(
        self, request: services_pb2.ListRevisionsRequest, context: object
    ) -> services_pb2.ListRevisionsResponse:
        """Revisions, newest first."""
        row = await self._commands.existing(self._workspace(request.workspace), request.name)
        found = await self._store.revisions(row.workspace, row.name)
        return services_pb2.ListRevisionsResponse(
            revisions=[revision_view(r, current=r.number == row.revision.number) for r in reversed(found)]
        )

    async def GetSchema(
        self, request: services_pb2.GetSchemaRequest, context: object
    ) -> services_pb2.GetSchemaResponse:
        """The JSON Schema of service.json."""
        return services_pb2.GetSchemaResponse(json_schema=schema_text())

    async def UploadCode(
        self, request_iterator: AsyncIterator[services_pb2.UploadCodeRequest], context: object
    ) -> services_pb2.UploadCodeResponse:
        """Keeps an archive by its digest."""
        digest, size = await self._code.keep(_chunks(request_iterator))
        async with self._store.database.transaction() as connection:
            await audit.record(connection, caller(), self._settings.workspace, "Services.UploadCode", f"code/{digest}",
                               None, {"digest": digest, "size_bytes": size})  # fmt: skip
        return services_pb2.UploadCodeResponse(digest=digest, size_bytes=size)

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why the service has its status."""
        row = await self._commands.existing(self._workspace(request.workspace), request.name)
        canary = await self._canaries.on(row.workspace, row.name)
        lines = explain(row, await self._worlds.of(row.workspace, row.name), canary)
        answer = common_pb2.Explanation(
            part="control", lines=[common_pb2.Why(code=w.code, message=w.message, hint=w.hint) for w in lines]
        )
        answer.at.FromDatetime(self._clock.now())
        return answer

    async def _simple(self, method: str, request: Any, decide: Any) -> services_pb2.Service:
        async def decided(row: ServiceRow, connection: Connection) -> Change | None:
            now: datetime = self._clock.now()
            made: Change | None = decide(row, now)
            return made

        work: Decide = decided
        return await self._commands.change(self._call(method, request), request.name, work)

    def _call(self, method: str, request: Any, *, dry_run: bool = False) -> Call:
        return self._mutations.call(f"Services.{method}", request, dry_run=dry_run)

    def _workspace(self, asked: str) -> str:
        return workspace_of(asked, self._settings.workspace)


async def _chunks(requests: AsyncIterator[services_pb2.UploadCodeRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if len(request.chunk) > 2**20:
            raise InvalidInput(f"a chunk has {len(request.chunk)} bytes; at most {2**20} are allowed")
        yield request.chunk
