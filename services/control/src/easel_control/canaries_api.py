"""easel.v1.Canaries: requests to commands and rows to answers. Decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

from easel_contracts.errors import NotFound
from easel_control.canary_commands import CanaryCommands
from easel_control.canary_store import CanaryStore
from easel_control.canary_views import asked, canary_view
from easel_control.decide.canary import Canary
from easel_control.decide.canary_plan import planned
from easel_control.mutating import Mutations
from easel_control.pages import page_size, plain, workspace_of
from easel_kit.clock import Clock
from easel_proto.v1 import canaries_pb2, canaries_pb2_grpc

WATCH_S = 0.5
"""Seconds between looks of a watcher; a canary itself is looked at once a second."""


class CanariesApi(canaries_pb2_grpc.CanariesServicer):
    """Canaries of services and groups."""

    def __init__(
        self, workspace: str, canaries: CanaryStore, commands: CanaryCommands, mutations: Mutations, clock: Clock
    ) -> None:
        self._workspace, self._canaries, self._commands = workspace, canaries, commands
        self._mutations, self._clock = mutations, clock

    async def Start(self, request: canaries_pb2.StartCanaryRequest, context: object) -> canaries_pb2.Canary:
        """Begins one."""
        call = self._mutations.call("Canaries.Start", request)
        return await self._commands.start(call, request, planned(asked(request.plan)))

    async def Get(self, request: canaries_pb2.GetCanaryRequest, context: object) -> canaries_pb2.Canary:
        """The one that is on, or the last one."""
        return canary_view(await self._existing(request))

    async def List(
        self, request: canaries_pb2.ListCanariesRequest, context: object
    ) -> canaries_pb2.ListCanariesResponse:
        """Those that are on, and past ones."""
        workspace, size = workspace_of(request.workspace, self._workspace), page_size(request.page_size)
        found = await self._canaries.newest(workspace, plain(request.name), size)
        return canaries_pb2.ListCanariesResponse(canaries=[canary_view(canary) for canary in found])

    async def Watch(
        self, request: canaries_pb2.GetCanaryRequest, context: object
    ) -> AsyncIterator[canaries_pb2.Canary]:
        """The canary whenever it changed, until it has ended."""
        canary, told = await self._existing(request), 0
        while True:
            if canary.row_version != told:
                told = canary.row_version
                yield canary_view(canary)
            if not canary.is_on:
                return
            await self._clock.sleep(WATCH_S)
            again = canaries_pb2.GetCanaryRequest(workspace=request.workspace, name=canary.id)
            canary = await self._existing(again)

    async def Change(self, request: canaries_pb2.ChangeCanaryRequest, context: object) -> canaries_pb2.Canary:
        """By hand."""
        call = self._mutations.call("Canaries.Change", request)
        return await self._commands.change(call, request.name, request.action)

    async def _existing(self, request: canaries_pb2.GetCanaryRequest) -> Canary:
        found = await self._canaries.find(workspace_of(request.workspace, self._workspace), plain(request.name))
        if found is None:
            raise NotFound("NO_CANARY", f"there has been no canary of {plain(request.name)}",
                           f"`easel canary start {plain(request.name)} -s FILE` starts one")  # fmt: skip
        return found
