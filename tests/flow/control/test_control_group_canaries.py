"""Canaries between members of a group, on the real stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from easel_contracts.facts import GroupState, RouteState
from easel_contracts.facts import state_of as read
from easel_kit.grpc import Server
from easel_kit.keyring import Keyring
from easel_kit.testing import eventually
from easel_proto.internal.v1 import monitor_pb2_grpc
from easel_proto.v1 import audit_pb2, canaries_pb2, common_pb2, groups_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_canaries import FAST, Monitor, by_hand, canary
from tests.flow.control.test_control_groups import group, modify, release, text, update
from tests.flow.control.test_control_mutations import create, refused


class Gateway:
    """A monitor, and a gateway that does what the group's newest fact says."""

    def __init__(self, control: Control) -> None:
        self.control, self.monitor, self.over = control, Monitor(), False
        self._live: int | None = None

    async def follow(self) -> None:
        while not self.over:
            states = await self.told()
            weight = states[-1].split.weight_permille if states and states[-1].split is not None else None
            if weight != self._live:
                state = RouteState(service="letters", generation=1, state="probed", version="v", replicas=(),
                                   split_permille=weight)  # fmt: skip
                await self.control.hear("applied", state, service="letters")
                self._live, self.monitor.permille = weight, weight or 0
            await asyncio.sleep(0.1)

    async def told(self) -> list[GroupState]:
        return [read(f, GroupState) for f in await self.control.told() if f.entity == "group"]


@asynccontextmanager
async def gateway(control: Control) -> AsyncIterator[Gateway]:
    around = Gateway(control)
    server = Server(control.settings.monitor_addr, Keyring(control.settings.peers_file))
    server.add(monitor_pb2_grpc.add_CountsServicer_to_server, around.monitor, "easel.internal.v1.Counts")
    await server.start()
    following = asyncio.create_task(around.follow())
    try:
        yield around
    finally:
        around.over = True
        await following
        await server.stop(0)


async def members(control: Control) -> None:
    """Two services of one replica each; the first has all of the group's requests."""
    for name in ("ocr_a", "ocr_b"):
        await create(control, text(name))
        await control.hear("ready", replica(f"{name}-1-x", "ready", service=name), service=name)
        await control.hear("applied", replace(route(f"{name}-1-x"), service=name), service=name)
    await release(control, "ocr_a", traffic_state="grouping")


async def start(control: Control, candidate: str = "ocr_b", **more: Any) -> canaries_pb2.Canary:
    plan = canaries_pb2.CanaryPlan(**(FAST | more.pop("plan", {})))
    request = canaries_pb2.StartCanaryRequest(name="letters", candidate=candidate, plan=plan, **more)
    made: canaries_pb2.Canary = await control.canaries().Start(request, metadata=control.auth)
    return made


async def on_letters(control: Control, action: str) -> canaries_pb2.Canary:
    request = canaries_pb2.ChangeCanaryRequest(name="letters", action=action)
    made: canaries_pb2.Canary = await control.canaries().Change(request, metadata=control.auth)
    return made


async def ends(control: Control, state: str) -> canaries_pb2.Canary:
    async def there() -> Any:
        found = await canary(control, "letters")
        assert (found.state, found.HasField("end_time")) == (state, True), found
        return found

    found: canaries_pb2.Canary = await eventually(there, 40.0)
    return found


async def test_a_member_takes_over(control: Control) -> None:
    """Told step by step; promoted it has all of the weight, and the others stay members with none."""
    async with gateway(control) as around:
        await members(control)
        begun = await start(control)
        assert (begun.kind, begun.candidate, begun.state) == ("group", "ocr_b", "starting")
        over = await ends(control, "promoted")
        assert over.candidate_counts.requests > 500
        found = await group(control)
        assert found.traffic_mode == "customized"
        assert {m.service: (m.traffic_state, m.weight) for m in found.members} == {
            "ocr_a": ("grouping", 0), "ocr_b": ("grouping", 1000),
        }  # fmt: skip
        told = [s.split.weight_permille if s.split else None for s in await around.told()]
        assert [w for i, w in enumerate(told) if i == 0 or w != told[i - 1]] == [None, 0, 500, 1000, None]
    records = await control.audit().List(audit_pb2.ListAuditRequest(target="group/letters"), metadata=control.auth)
    assert records.records[0].action == "Canaries.Start"
    assert json.loads(records.records[0].after_json)["canary"] == "ocr_b at 0 %"


async def test_a_worse_member_is_out_and_the_group_as_before(control: Control) -> None:
    async with gateway(control) as around:
        await members(control)
        before = await group(control)
        around.monitor.errors = (0, 10)
        await start(control, plan={"step_time_s": 60})
        over = await ends(control, "rolled_back")
        assert (over.reason, "evidence 10^" in over.message) == ("Worse", True)
        found = await group(control)
        assert [(m.service, m.weight) for m in found.members] == [(m.service, m.weight) for m in before.members]
        last = (await around.told())[-1]
        assert (last.split, last.candidate) == (None, "")


async def test_one_at_a_time_and_by_hand(control: Control) -> None:
    """No canary of a member beside one of its group, and how requests are shared is not changed meanwhile."""
    async with gateway(control):
        await members(control)
        assert (await refused(start(control, "nobody"))).code == "INVALID_INPUT"
        assert (await refused(start(control, ""))).code == "INVALID_INPUT"
        assert (await refused(start(control, "ocr_a"))).code == "NOTHING_TO_COMPARE"
        await start(control, plan={"manual": True})
        assert (await refused(start(control))).code == "CANARY_ON"
        assert (await refused(release(control, "ocr_a", weight=3))).code == "CANARY_ON"
        assert (await refused(update(control, traffic_mode="customized"))).code == "CANARY_ON"
        assert (await update(control, rate_limit=7)).rate_limit == 7
        own = canaries_pb2.StartCanaryRequest(name="ocr_a", config=json.dumps({"metadata.cpu": 2}))
        assert (await refused(control.canaries().Start(own, metadata=control.auth))).code == "CANARY_ON"
        why = await control.groups().Explain(common_pb2.ExplainRequest(name="letters"), metadata=control.auth)
        assert "Canary" in [line.code for line in why.lines]
        assert (await on_letters(control, "pause")).state == "paused"
        assert (await on_letters(control, "resume")).state == "starting"
        await on_letters(control, "abort")
        await ends(control, "aborted")
        assert (await refused(by_hand(control, "abort"))).code == "NO_SUCH_SERVICE"


async def test_a_candidate_that_leaves_or_stops_ends_it(control: Control) -> None:
    async with gateway(control):
        await members(control)
        await start(control, plan={"manual": True})
        await control.services().Stop(services_pb2.StopServiceRequest(name="ocr_b"), metadata=control.auth)
        assert (await ends(control, "aborted")).reason == "Stopped"
        await control.services().Start(services_pb2.StartServiceRequest(name="ocr_b"), metadata=control.auth)
        again = await start(control, plan={"manual": True})
        await modify(control, "ocr_b", {"metadata.group": None})
        over = await ends(control, "aborted")
        assert over.id == again.id
        found = await group(control)
        assert [m.service for m in found.members] == ["ocr_a"]
        request = groups_pb2.ReleaseRequest(service="ocr_a", weight=5)
        assert (await control.groups().Release(request, metadata=control.auth)).traffic_mode == "customized"
