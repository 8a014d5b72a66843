"""What becomes of a group, and control's explanation of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from easel_contracts.errors import InvalidInput
from easel_contracts.facts import GroupMember
from easel_contracts.spec import GatewayPolicy
from easel_control.decide import groups
from easel_control.decide.explain_group import explain_group
from easel_control.model import GroupRow, group_state
from tests.unit.control.rows import NOW, row


def group(*members: GroupMember, **changes: Any) -> GroupRow:
    made = GroupRow(
        workspace="default", name="letters", uid="g", row_version=4, generation=3, members=members or (member("old"),),
        token_sealed=b"t", created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return replace(made, **changes)


def member(service: str, state: Any = "grouping", weight: int = -1) -> GroupMember:
    return GroupMember(service=service, state=state, weight=weight)


def test_a_group_comes_with_its_first_member_and_goes_on_counting() -> None:
    made = groups.created("ocr", workspace="default", name="letters", uid="g", token_sealed=b"t", past=(7, 31), now=NOW)

    assert (made.verb, made.row.generation, made.row.row_version, made.row.mode) == ("created", 8, 32, "auto")
    assert made.row.members == (GroupMember(service="ocr", state="standalone", weight=-1),)


def test_a_new_member_takes_no_part_and_members_are_sorted() -> None:
    made = groups.joined(group(), "new", NOW)

    assert (made.verb, made.row.generation, made.row.row_version) == ("updated", 4, 5)
    assert made.row.members == (member("new", "standalone"), member("old"))


def test_the_last_member_takes_the_group_along() -> None:
    some = groups.left(group(member("new"), member("old")), "new", NOW)
    last = groups.left(some.row, "old", NOW)

    assert (some.verb, some.row.members) == ("updated", (member("old"),))
    assert (last.verb, last.row.members, last.row.row_version) == ("deleted", (), 6)
    assert group_state(last.row).members == ()


@pytest.mark.parametrize(
    ("state", "weight", "after", "mode"),
    [
        ("grouping", None, member("new"), "auto"),
        ("grouping", -1, member("new"), "auto"),
        ("", 40, member("new", "grouping", 40), "customized"),
        ("", 0, member("new", "grouping", 0), "customized"),
        ("standalone", 40, member("new", "standalone", 40), "customized"),
    ],
)
def test_a_release(state: str, weight: int | None, after: GroupMember, mode: str) -> None:
    made = groups.released(group(member("new", "standalone"), member("old")), "new", state, weight, NOW)

    assert made is not None
    assert (made.row.members[0], made.row.members[1], made.row.mode) == (after, member("old"), mode)
    assert (made.verb, made.reason, made.row.generation) == ("updated", "Released", 4)


def test_a_release_that_changes_nothing_is_none() -> None:
    assert groups.released(group(), "old", "grouping", None, NOW) is None
    assert groups.released(group(member("old", weight=4), mode="customized"), "old", "", 4, NOW) is None


def test_a_weight_goes_back_to_replicas_without_a_change_of_the_mode() -> None:
    made = groups.released(group(member("old", weight=4), mode="customized"), "old", "", -1, NOW)

    assert made is not None
    assert (made.row.members, made.row.mode) == ((member("old"),), "customized")


@pytest.mark.parametrize(
    ("state", "weight", "path"),
    [("", None, "traffic_state"), ("on", None, "traffic_state"), ("", 1001, "weight"), ("", -2, "weight")],
)
def test_a_release_that_is_refused_names_what_is_wrong(state: str, weight: int | None, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        groups.released(group(), "old", state, weight, NOW)

    assert [f.path for f in caught.value.fields] == [path]


def test_mode_and_limits() -> None:
    made = groups.updated(group(), "customized", 100, None, NOW)
    assert made is not None
    assert (made.row.mode, made.row.gateway) == ("customized", GatewayPolicy(rate_limit_qps=100))
    limits = "at most 100 requests per second, none of requests at a time"
    assert made.message == f"traffic mode customized, was auto; {limits}"
    again = groups.updated(made.row, "", None, 5, NOW)
    assert again is not None
    assert (again.row.mode, again.row.gateway.rate_limit_qps, again.row.gateway.concurrency_limit) == (
        "customized", 100, 5,
    )  # fmt: skip
    assert groups.updated(made.row, "customized", 100, 0, NOW) is None
    off = groups.updated(again.row, "", 0, 0, NOW)
    assert off is not None
    assert off.row.gateway == GatewayPolicy()


def test_all_that_is_wrong_comes_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        groups.updated(group(), "equal", -1, 10**9, NOW)

    assert [f.path for f in caught.value.fields] == ["traffic_mode", "rate_limit", "concurrency_limit"]


def explained(made: GroupRow, **replicas: int) -> list[tuple[str, str]]:
    services = {m.service: row(name=m.service, status="Running", running=1) for m in made.members}
    found = explain_group(made, groups.standings(made, services, replicas))
    return [(w.code, w.message) for w in found]


def test_standings_follow_the_shares() -> None:
    made = group(member("aaa"), member("bbb"), member("ccc", "standalone"))
    found = groups.standings(made, {"aaa": row(name="aaa", status="Running", running=3)}, {"aaa": 3, "bbb": 1})

    assert [(s.share, s.running, s.status) for s in found] == [(0.75, 3, "Running"), (0.25, 0, ""), (0, 0, "")]


def test_an_explanation_says_who_gets_what_and_why() -> None:
    made = group(member("aaa"), member("bbb", weight=30), member("ccc", "standalone"), member("ddd", weight=0),
                 member("eee", weight=10), mode="customized")  # fmt: skip
    codes = [code for code, _ in explained(made, aaa=1, bbb=3)]
    lines = dict(explained(made, aaa=1, bbb=3))

    assert codes == ["Group", "Share", "Share", "Standalone", "NoWeight", "NoReplica", "Limits"]
    assert lines["Group"] == "4 of 5 members take part; traffic mode customized: by weights"
    assert lines["Share"] == "aaa (Running, 1 replicas in traffic) gets 25 % of the requests: its part of the replicas"
    assert "eee" in lines["NoReplica"]


def test_an_explanation_of_nobody() -> None:
    assert explained(group(member("aaa", "standalone")))[1] == (
        "NobodyTakes", "no member takes part, so no request to letters is answered by a service"
    )  # fmt: skip
    assert explained(group(member("aaa", weight=0), mode="customized"))[1][1].startswith("all that take part have")
    assert [code for code, _ in explained(group(member("aaa")))][1:3] == ["NobodyReady", "Share"]
