"""Groups over gRPC: rows, facts, audit, tokens and answers, on the real stores."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from easel_contracts.errors import AlreadyExists, Conflict, EaselError, InvalidInput, NotFound
from easel_contracts.facts import GroupMember, GroupState, RouteState, ServiceState
from easel_contracts.facts import state_of as read
from easel_kit.facts_api import fetch
from easel_kit.grpc import channel
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, common_pb2, groups_pb2, services_pb2, tokens_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import FILE, create, refused


def text(name: str, group: str = "letters", **metadata: Any) -> str:
    given = {"name": name} | ({"group": group} if group else {}) | metadata
    return json.dumps({key: value for key, value in FILE.items() if key != "token"} | {"metadata": given})


async def group(control: Control, name: str = "letters") -> groups_pb2.Group:
    found: groups_pb2.Group = await control.groups().Get(groups_pb2.GetGroupRequest(name=name), metadata=control.auth)
    return found


async def release(control: Control, service: str, **more: Any) -> groups_pb2.Group:
    request = groups_pb2.ReleaseRequest(service=service, **more)
    found: groups_pb2.Group = await control.groups().Release(request, metadata=control.auth)
    return found


async def update(control: Control, name: str = "letters", **more: Any) -> groups_pb2.Group:
    request = groups_pb2.UpdateGroupRequest(name=name, **more)
    found: groups_pb2.Group = await control.groups().Update(request, metadata=control.auth)
    return found


async def modify(control: Control, name: str, change: dict[str, Any], **more: Any) -> services_pb2.Service:
    request = services_pb2.UpdateServiceRequest(name=name, config=json.dumps(change), **more)
    found: services_pb2.Service = await control.services().Update(request, metadata=control.auth)
    return found


async def told(control: Control, count: int, name: str = "letters") -> list[tuple[str, GroupState]]:
    """Facts of the group, once there are so many."""

    async def found() -> list[tuple[str, GroupState]]:
        facts = [f for f in await control.told() if f.entity == "group" and f.key == name]
        return [(f.verb, read(f, GroupState)) for f in facts] if len(facts) >= count else []

    facts: list[tuple[str, GroupState]] = await eventually(found)
    return facts


async def test_a_group_comes_with_its_first_member(control: Control) -> None:
    """Its endpoint and token are its own; the member is standalone; fact and audit record belong to the same change."""
    made = await create(control, text("ocr_a"))

    assert (made.service_group, made.traffic_state, made.weight) == ("letters", "standalone", -1)
    found = await group(control)
    assert (found.endpoint, found.traffic_mode) == ("http://127.0.0.1:8080/api/predict/letters", "auto")
    assert len(found.token) >= 40
    assert found.token != made.token
    [member] = found.members
    assert (member.service, member.traffic_state, member.share_percent) == ("ocr_a", "standalone", 0)
    assert member.endpoint == made.endpoint
    assert member.group_endpoint == "http://127.0.0.1:8080/api/predict/letters.ocr_a"
    [(verb, state)] = await told(control, 1)
    assert (verb, state.name, state.members) == ("created", "letters", (GroupMember(service="ocr_a"),))
    assert found.token.encode() not in b"".join(bytes(f.data) for f in await control.told())
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="group/letters"), metadata=control.auth)
    assert [(r.action, r.before_json) for r in audit.records] == [("Services.Create", "")]
    assert found.token not in audit.records[0].after_json


async def test_members_come_move_and_leave_and_the_last_one_takes_the_group_along(control: Control) -> None:
    await create(control, text("ocr_a"))
    await create(control, text("ocr_b"))
    token = (await group(control)).token
    moved = await modify(control, "ocr_b", {"metadata": {"group": "words"}})

    assert (moved.service_group, moved.revision, moved.generation) == ("words", 1, 2)
    assert [m.service for m in (await group(control)).members] == ["ocr_a"]
    assert [m.service for m in (await group(control, "words")).members] == ["ocr_b"]

    left = await modify(control, "ocr_b", {"metadata": {"group": None}})

    assert (left.service_group, left.traffic_state, left.weight) == ("", "standalone", 0)
    assert isinstance(await refused(group(control, "words")), NotFound)
    await control.services().Delete(services_pb2.DeleteServiceRequest(name="ocr_a"), metadata=control.auth)
    assert isinstance(await refused(group(control)), NotFound)
    verbs = [verb for verb, _ in await told(control, 4)]
    assert verbs == ["created", "updated", "updated", "deleted"]

    await create(control, text("ocr_c"))

    again = await told(control, 5)
    assert (again[4][0], again[4][1].generation) == ("created", again[3][1].generation + 1)
    facts = [f for f in await control.told() if f.entity == "group" and f.key == "letters"]
    assert [f.row_version for f in facts] == [1, 2, 3, 4, 5]
    assert (await group(control)).token != token


async def test_names_of_groups_and_services_do_not_meet(control: Control) -> None:
    """Whichever was first."""
    await create(control, text("ocr_a"))

    taken = await refused(create(control, text("letters", group="")))
    assert isinstance(taken, AlreadyExists)
    assert (taken.code, "a group letters" in taken.message) == ("NAME_TAKEN", True)
    for change in (create(control, text("ocr_b", group="ocr_a")),
                   modify(control, "ocr_a", {"metadata.group": "ocr_a"})):  # fmt: skip
        wrong = await refused(change)
        assert isinstance(wrong, InvalidInput)
        assert [f.path for f in wrong.fields] == ["metadata.group"]
    assert isinstance(await refused(control.services().Get(
        services_pb2.GetServiceRequest(name="ocr_b"), metadata=control.auth)), NotFound)  # fmt: skip


async def test_a_name_is_given_once_whoever_asks_at_the_same_time(control: Control) -> None:
    """A service and a group of one name, twenty times, crosswise: one of each pair is made, none waits for ever."""
    asked = [
        call
        for i in range(10)
        for call in (create(control, text(f"one{i}", f"two{i}")), create(control, text(f"two{i}", f"one{i}")))
    ]
    found = await asyncio.gather(*asked, return_exceptions=True)

    made = [f for f in found if isinstance(f, services_pb2.Service)]
    assert len(made) == 10
    assert {made.service_name[-1] for made in made} == set("0123456789")


async def test_many_join_at_the_same_time(control: Control) -> None:
    """None is lost, and the group is made once."""
    await asyncio.gather(*(create(control, text(f"ocr_{i}")) for i in range(8)))

    assert [m.service for m in (await group(control)).members] == [f"ocr_{i}" for i in range(8)]
    verbs = [verb for verb, _ in await told(control, 8)]
    assert verbs == ["created", *["updated"] * 7]


async def test_moving_crosswise_waits_for_nobody(control: Control) -> None:
    await create(control, text("ocr_a", "letters"))
    await create(control, text("ocr_b", "words"))
    for here, there in (("words", "letters"), ("letters", "words")) * 3:
        await asyncio.gather(modify(control, "ocr_a", {"metadata.group": here}),
                             modify(control, "ocr_b", {"metadata.group": there}))  # fmt: skip

    assert [m.service for m in (await group(control)).members] == ["ocr_a"]


async def test_release_weights_and_shares(control: Control) -> None:
    """auto: by replicas in traffic; a fixed weight makes the group customized."""
    for name, replicas in (("ocr_a", 3), ("ocr_b", 1)):
        await create(control, text(name))
        route = RouteState(service=name, generation=1, state="probed", version="v",
                           replicas=tuple(f"{name}-{i}" for i in range(replicas)))  # fmt: skip
        await control.hear("applied", route, service=name)
    first = await release(control, "ocr_a", traffic_state="grouping")
    assert (first.members[0].traffic_state, first.generation) == ("grouping", 3)
    await release(control, "ocr_b", traffic_state="grouping", weight=-1)

    async def shares() -> dict[str, float]:
        return {m.service: m.share_percent for m in (await group(control)).members}

    async def by_replicas() -> bool:
        return await shares() == {"ocr_a": 75, "ocr_b": 25}

    await eventually(by_replicas)
    weighed = await release(control, "ocr_b", weight=40)

    assert (weighed.traffic_mode, weighed.members[1].weight) == ("customized", 40)
    assert await shares() == {"ocr_a": 75, "ocr_b": 25}, "-1 has its part of the replicas before fixed weights count"
    await release(control, "ocr_a", weight=60)
    assert await shares() == {"ocr_a": 60, "ocr_b": 40}
    alone = await release(control, "ocr_a", traffic_state="standalone")
    assert [m.share_percent for m in alone.members] == [0, 100]
    service = await control.services().Get(services_pb2.GetServiceRequest(name="ocr_a"), metadata=control.auth)
    assert (service.service_group, service.traffic_state, service.weight) == ("letters", "standalone", 60)
    listed = await control.services().List(services_pb2.ListServicesRequest(), metadata=control.auth)
    assert [s.weight for s in listed.services] == [60, 40]
    state = (await told(control, 7))[-1][1]
    assert (state.mode, state.members[0]) == ("customized", GroupMember(service="ocr_a", weight=60))
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="group/letters"), metadata=control.auth)
    assert audit.records[0].action == "Groups.Release"
    assert json.loads(audit.records[0].after_json)["members"][0]["traffic_state"] == "standalone"


async def test_what_cannot_be_released(control: Control) -> None:
    await create(control, text("lone", group=""))
    await create(control, text("ocr_a"))

    async def error(service: str, **more: Any) -> EaselError:
        return await refused(release(control, service, **more))

    assert (await error("nobody", weight=1)).code == "NO_SUCH_SERVICE"
    assert (await error("lone", weight=1)).code == "NO_GROUP"
    for wrong in ({"weight": 1001}, {"weight": -2}, {"traffic_state": "on"}, {}):
        assert isinstance(await error("ocr_a", **wrong), InvalidInput), wrong
    await control.services().Lock(services_pb2.LockServiceRequest(name="ocr_a", lock="all"), metadata=control.auth)
    locked = await error("ocr_a", weight=1)
    assert isinstance(locked, Conflict)
    assert locked.code == "LOCKED"
    assert [verb for verb, _ in await told(control, 1)] == ["created"]


async def test_mode_and_limits_with_idempotency(control: Control) -> None:
    await create(control, text("ocr_a"))
    first = await update(control, traffic_mode="customized", rate_limit=100, concurrency_limit=7, idempotency_key="k")
    again = await update(control, traffic_mode="customized", rate_limit=100, concurrency_limit=7, idempotency_key="k")

    assert (first.traffic_mode, first.rate_limit, first.concurrency_limit) == ("customized", 100, 7)
    assert again == first
    off = await update(control, rate_limit=0)
    assert (off.traffic_mode, off.rate_limit, off.concurrency_limit) == ("customized", 0, 7)
    wrong = await refused(update(control, traffic_mode="equal", rate_limit=-1))
    assert isinstance(wrong, InvalidInput)
    assert [f.path for f in wrong.fields] == ["traffic_mode", "rate_limit"]
    assert (await refused(update(control, "nothing", rate_limit=1))).code == "NO_SUCH_GROUP"
    assert (await refused(update(control, rate_limit=5, idempotency_key="k"))).code == "IDEMPOTENCY_KEY_REUSED"
    states = [state for _, state in await told(control, 3)]
    assert [s.gateway.rate_limit_qps for s in states] == [0, 100, 0]


async def test_list_by_pages(control: Control) -> None:
    for name in ("ccc", "aaa", "bbb"):
        await create(control, text(f"in_{name}", name))
    first = await control.groups().List(groups_pb2.ListGroupsRequest(page_size=2), metadata=control.auth)
    last = await control.groups().List(
        groups_pb2.ListGroupsRequest(page_size=2, page_token=first.next_page_token), metadata=control.auth
    )

    assert [g.name for g in first.groups] == ["aaa", "bbb"]
    assert ([g.name for g in last.groups], last.next_page_token) == (["ccc"], "")
    assert [m.service for m in last.groups[0].members] == ["in_ccc"]


async def test_the_router_gets_tokens_of_groups_and_others_do_not(control: Control) -> None:
    made = await create(control, text("ocr_a"))
    found = await group(control)

    async def given(**names: Any) -> tuple[dict[str, str], dict[str, str]]:
        answer = await control.as_process("router").GetTokens(control_pb2.GetTokensRequest(**names))
        return {t.service: t.token for t in answer.tokens}, {t.service: t.token for t in answer.groups}

    both = ({"ocr_a": made.token}, {"letters": found.token})
    assert await given() == both
    assert await given(groups=["letters"]) == ({}, both[1])
    assert await given(services=["ocr_a"]) == (both[0], {})
    assert await given(services=["ocr_a"], groups=["letters", "gone"]) == both
    denied = await refused(control.as_process("agent").GetTokens(control_pb2.GetTokensRequest()))
    assert denied.code == "NOT_FOR_YOU"


async def test_further_tokens_of_a_group_go_with_it(control: Control) -> None:
    await create(control, text("ocr_a"))
    request = tokens_pb2.CreateTokenRequest(group="letters", name="mobile", value="mobile-value-hush")
    await control.tokens().Create(request, metadata=control.auth)
    rotated = await control.tokens().Rotate(
        tokens_pb2.RotateTokenRequest(group="letters", name="default", overlap_s=60), metadata=control.auth
    )

    assert (await group(control)).token == rotated.value
    asked = control_pb2.GetTokensRequest(groups=["letters"])
    answer = await control.as_process("router").GetTokens(asked)
    assert (answer.groups[0].token, answer.groups[0].version) == (rotated.value, 3)
    assert sorted(t.name for t in answer.groups[0].more) == ["default.1", "mobile"]
    assert (await told(control, 3))[-1][1].token_version == 3
    await modify(control, "ocr_a", {"metadata.group": None})
    await modify(control, "ocr_a", {"metadata.group": "letters"})
    answer = await control.as_process("router").GetTokens(asked)
    assert [len(t.more) for t in answer.groups] == [0]


async def test_readers_that_rebuild_get_every_group(control: Control) -> None:
    """The living ones and those that were, each with its newest state."""
    await create(control, text("ocr_a", "words"))
    await modify(control, "ocr_a", {"metadata.group": "letters"})
    await release(control, "ocr_a", weight=3)
    opened = channel(control.settings.control_addr, (control.directory / "router.token").read_text())
    listed = {f.key: f for f in await fetch(opened, "group")}
    await opened.close(None)

    assert {key: f.verb for key, f in listed.items()} == {"letters": "updated", "words": "deleted"}
    assert read(listed["letters"], GroupState).members == (GroupMember(service="ocr_a", state="grouping", weight=3),)
    assert (listed["words"].row_version, listed["letters"].row_version) == (2, 2)


async def test_a_clone_of_a_member_joins_and_takes_no_part(control: Control) -> None:
    await create(control, text("ocr_a"))
    await release(control, "ocr_a", weight=3)
    made = await control.services().Clone(
        services_pb2.CloneServiceRequest(name="ocr_a", new_name="ocr_b"), metadata=control.auth
    )

    assert (made.service_group, made.traffic_state, made.weight) == ("letters", "standalone", -1)
    assert [m.traffic_state for m in (await group(control)).members] == ["grouping", "standalone"]


async def test_a_dry_run_makes_no_group(control: Control) -> None:
    made = await create(control, text("ocr_a"), dry_run=True)

    assert (made.service_group, made.traffic_state) == ("letters", "standalone")
    assert isinstance(await refused(group(control)), NotFound)


async def test_a_change_of_policy_is_told_and_no_revision(control: Control) -> None:
    await create(control, text("ocr_a"))
    change = {"networking.gateway_policy.rate_limit": {"enable": True, "limit": 9}, "metadata.rpc.worker_threads": 2}
    made = await modify(control, "ocr_a", change)

    assert (made.revision, made.generation) == (1, 2)
    facts = await eventually(lambda: changed(control))
    assert (facts[-1].gateway.rate_limit_qps, facts[-1].gateway.worker_threads) == (9, 2)
    assert (facts[-1].group, facts[-1].revision.number) == ("letters", 1)


async def changed(control: Control) -> list[ServiceState]:
    found = [read(f, ServiceState) for f in await control.told() if f.entity == "service"]
    return found if len(found) > 1 else []


async def test_explain(control: Control) -> None:
    await create(control, text("ocr_a"))
    asked = common_pb2.ExplainRequest(name="letters")
    nobody = await control.groups().Explain(asked, metadata=control.auth)
    await release(control, "ocr_a", traffic_state="grouping")
    found = await control.groups().Explain(asked, metadata=control.auth)

    assert nobody.part == "control"
    assert [w.code for w in nobody.lines] == ["Group", "NobodyTakes", "Standalone", "Limits"]
    assert "easel release ocr_a" in nobody.lines[1].hint
    assert [w.code for w in found.lines] == ["Group", "NobodyReady", "Share", "Limits"]
    with pytest.raises(NotFound):
        raise await refused(control.groups().Explain(common_pb2.ExplainRequest(name="no"), metadata=control.auth))
