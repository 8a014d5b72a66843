"""control's API of groups, for tests of clients: one group, `letters`."""

from __future__ import annotations

from typing import Any

from easel_contracts.errors import Conflict, NotFound
from easel_proto.v1 import groups_pb2, groups_pb2_grpc
from tests.flow.sdk.state import TOKEN, Platform, abort


class Groups(groups_pb2_grpc.GroupsServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Groups.Get", request, context)
        return self._group(request.name, context)

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Groups.List", request, context)
        names = sorted(self._p.groups)
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(names) else ""
        return groups_pb2.ListGroupsResponse(
            groups=[self._p.groups[n] for n in names[start : start + 1]], next_page_token=token
        )

    def Update(self, request: Any, context: Any) -> Any:
        self._p.enter("Groups.Update", request, context)
        group = self._group(request.name, context)
        group.traffic_mode = request.traffic_mode or group.traffic_mode
        if request.HasField("rate_limit"):
            group.rate_limit = request.rate_limit
        if request.HasField("concurrency_limit"):
            group.concurrency_limit = request.concurrency_limit
        return group

    def Release(self, request: Any, context: Any) -> Any:
        self._p.enter("Groups.Release", request, context)
        found = [(g, m) for g in self._p.groups.values() for m in g.members if m.service == request.service]
        if not found:
            abort(context, Conflict("NO_GROUP", f"{request.service} belongs to no group", "metadata.group"))
        [(group, member)] = found
        member.traffic_state = request.traffic_state
        if request.HasField("weight"):
            member.weight, group.traffic_mode = request.weight, "customized"
        return group

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Groups.Explain", request, context)
        self._group(request.name, context)
        return self._p.explanation("control")

    def _group(self, name: str, context: Any) -> groups_pb2.Group:
        if name not in self._p.groups:
            abort(context, NotFound("NO_SUCH_GROUP", f"there is no group {name}", "`easel group ls` lists all"))
        return self._p.groups[name]


def letters(platform: Platform) -> groups_pb2.Group:
    """Puts a group with two members on the platform: one takes part, one does not."""
    base = f"http://127.0.0.1:{platform.data_port}/api/predict"
    made = groups_pb2.Group(
        name="letters", uid="g-1", traffic_mode="auto", endpoint=f"{base}/letters", token=TOKEN, generation=3,
        rate_limit=100,
        members=[
            groups_pb2.GroupMember(service="ocr_a", traffic_state="grouping", weight=-1, share_percent=100,
                                   running_instance=2, status="Running"),
            groups_pb2.GroupMember(service="ocr_b", traffic_state="standalone", weight=-1, status="Waiting"),
        ],
    )  # fmt: skip
    platform.groups["letters"] = made
    return made
