"""Groups: services under one endpoint and token, and how requests are shared between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from easel_contracts.ids import uuid7
from easel_proto.v1 import groups_pb2 as pb
from easel_proto.v1.common_pb2 import ExplainRequest, Explanation
from easel_proto.v1.groups_pb2_grpc import GroupsStub
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.groups_pb2_grpc import GroupsAsyncStub

TrafficMode = Literal["auto", "customized"]
TrafficState = Literal["grouping", "standalone"]


class GroupsApi:
    """Calls to `easel.v1.Groups`. A service joins a group by `metadata.group` of its service.json."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def get(self, name: str) -> pb.Group:
        """The group as it is now, with the part of its requests that each member gets. Raises NotFound."""
        request = pb.GetGroupRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def list(self) -> list[pb.Group]:
        """Every group of the workspace."""
        found: list[pb.Group] = []
        token = ""
        while True:
            request = pb.ListGroupsRequest(workspace=self._workspace, page_size=1000, page_token=token)
            answer = await self._transport.call(
                lambda t, m, request=request: self._stub().List(request, timeout=t, metadata=m)  # type: ignore[misc]
            )
            found.extend(answer.groups)
            token = answer.next_page_token
            if not token:
                return found

    async def update(
        self, name: str, *, mode: TrafficMode | None = None, rate_limit: int | None = None,
        concurrency_limit: int | None = None, idempotency_key: str | None = None,
    ) -> pb.Group:  # fmt: skip
        """How requests are shared, and limits; None: as it is.

        `mode`: "auto" by replicas in traffic, "customized" by weights. `rate_limit`: requests per second of the whole
        group, `concurrency_limit`: requests at a time; 0: no limit. Raises InvalidInput, NotFound.
        """
        request = pb.UpdateGroupRequest(
            workspace=self._workspace, name=name, traffic_mode=mode or "", rate_limit=rate_limit,
            concurrency_limit=concurrency_limit, idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Update(request, timeout=t, metadata=m))

    async def release(
        self, service: str, *, weight: int | None = None, state: TrafficState = "grouping",
        idempotency_key: str | None = None,
    ) -> pb.Group:  # fmt: skip
        """Has a service take part in its group's traffic, or with "standalone" no more; returns the group.

        `weight`: 0 to 1000 beside the other members' weights makes the group "customized"; -1: by its replicas.
        Raises InvalidInput, NotFound; Conflict where the service is in no group, or locked.
        """
        request = pb.ReleaseRequest(
            workspace=self._workspace, service=service, traffic_state=state, weight=weight,
            idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Release(request, timeout=t, metadata=m))

    async def explain(self, name: str) -> Explanation:
        """Which part of the requests each member gets, and why. Raises NotFound."""
        request = ExplainRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Explain(request, timeout=t, metadata=m))

    def _stub(self) -> GroupsAsyncStub:
        return GroupsStub(self._transport.channel())
