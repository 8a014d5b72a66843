"""easel.v1.Groups: requests to mutations and rows to answers. Decides nothing."""

from __future__ import annotations

from typing import Any

from easel_control.decide.explain_group import explain_group
from easel_control.grouping import Grouping
from easel_control.mutating import Call, Mutations
from easel_control.pages import page_size, workspace_of
from easel_kit.clock import Clock
from easel_proto.v1 import common_pb2, groups_pb2, groups_pb2_grpc


class GroupsApi(groups_pb2_grpc.GroupsServicer):
    """Groups of services under one endpoint."""

    def __init__(self, workspace: str, grouping: Grouping, mutations: Mutations, clock: Clock) -> None:
        self._own, self._grouping, self._mutations, self._clock = workspace, grouping, mutations, clock

    async def Get(self, request: groups_pb2.GetGroupRequest, context: object) -> groups_pb2.Group:
        """One group."""
        row = await self._grouping.existing(workspace_of(request.workspace, self._own), request.name)
        [answer] = await self._grouping.shown([row])
        return answer

    async def List(self, request: groups_pb2.ListGroupsRequest, context: object) -> groups_pb2.ListGroupsResponse:
        """Groups by name."""
        size = page_size(request.page_size)
        rows = await self._grouping.page(workspace_of(request.workspace, self._own), request.page_token, size + 1)
        answer = groups_pb2.ListGroupsResponse(groups=await self._grouping.shown(rows[:size]))
        if len(rows) > size:
            answer.next_page_token = rows[size - 1].name
        return answer

    async def Update(self, request: groups_pb2.UpdateGroupRequest, context: object) -> groups_pb2.Group:
        """How traffic is shared, and limits."""
        return await self._grouping.update(self._call("Update", request), request)

    async def Release(self, request: groups_pb2.ReleaseRequest, context: object) -> groups_pb2.Group:
        """Has a service take part in its group's traffic, or no more."""
        return await self._grouping.release(self._call("Release", request), request)

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why each member gets what it gets."""
        row = await self._grouping.existing(workspace_of(request.workspace, self._own), request.name)
        [standings] = await self._grouping.standings([row])
        lines = explain_group(row, standings)
        answer = common_pb2.Explanation(
            part="control", lines=[common_pb2.Why(code=w.code, message=w.message, hint=w.hint) for w in lines]
        )
        answer.at.FromDatetime(self._clock.now())
        return answer

    def _call(self, method: str, request: Any) -> Call:
        return self._mutations.call(f"Groups.{method}", request)
