"""Shares of a group's requests: they add up, follow replicas and weights, and go to nobody who cannot answer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.facts import GroupMember
from easel_contracts.shares import shares

Mode = Literal["auto", "customized"]
Members = tuple[GroupMember, ...]

MODES = st.sampled_from(("auto", "customized"))
NAMES = ("aaa", "bbb", "ccc", "ddd", "eee")
WEIGHTS = st.one_of(st.sampled_from((-1, 0)), st.integers(1, 1000))
MEMBERS = st.lists(
    st.builds(
        GroupMember, service=st.sampled_from(NAMES), state=st.sampled_from(("grouping", "standalone")), weight=WEIGHTS
    ),
    max_size=5, unique_by=lambda m: m.service,
).map(tuple)  # fmt: skip
REPLICAS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 1000))
COUNTS = st.integers(1, 1000)
"""Of a further member, `zzz`, so that one always answers."""


def grouping(service: str, weight: int = -1) -> GroupMember:
    return GroupMember(service=service, state="grouping", weight=weight)


def wants(mode: Mode, member: GroupMember) -> bool:
    return member.state == "grouping" and (mode == "auto" or member.weight != 0)


@given(MODES, MEMBERS, REPLICAS)
def test_they_add_up_to_everything_or_nobody_takes_part(mode: Mode, members: Members, replicas: dict[str, int]) -> None:
    found = shares(mode, members, replicas)
    assert found.keys() == {m.service for m in members}
    assert all(0 <= share <= 1 for share in found.values())
    assert sum(found.values()) == pytest.approx(1 if any(wants(mode, m) for m in members) else 0)


@given(MODES, MEMBERS, REPLICAS)
def test_who_shall_not_or_cannot_answer_gets_nothing(mode: Mode, members: Members, replicas: dict[str, int]) -> None:
    found = shares(mode, members, replicas)
    one_answers = any(wants(mode, m) and replicas.get(m.service) for m in members)
    for member in members:
        takes = wants(mode, member) and (bool(replicas.get(member.service)) or not one_answers)
        assert (found[member.service] > 0) == takes


@given(MEMBERS, REPLICAS, COUNTS)
def test_auto_follows_the_replicas_whatever_the_weights(members: Members, replicas: dict[str, int], own: int) -> None:
    members, replicas = (*members, grouping("zzz", 0)), {**replicas, "zzz": own}
    total = sum(replicas.get(m.service, 0) for m in members if m.state == "grouping")
    for member in members:
        count = replicas.get(member.service, 0) if member.state == "grouping" else 0
        assert shares("auto", members, replicas)[member.service] == pytest.approx(count / total)


@given(MEMBERS, REPLICAS)
def test_fixed_weights_share_in_their_ratio(members: Members, replicas: dict[str, int]) -> None:
    found = shares("customized", members, replicas)
    fixed = [m for m in members if m.weight > 0 and found[m.service]]
    for one, other in pairwise(fixed):
        assert found[one.service] * other.weight == pytest.approx(found[other.service] * one.weight)


@given(MEMBERS, REPLICAS, COUNTS, st.integers(1, 1000))
def test_weight_minus_one_gets_its_part_of_the_replicas_before_fixed_ones(
    members: Members, replicas: dict[str, int], own: int, weight: int
) -> None:
    members, replicas = (*members, grouping("zzz", weight)), {**replicas, "zzz": own}
    found = shares("customized", members, replicas)
    total = sum(replicas.get(m.service, 0) for m in members if m.state == "grouping")
    for member in members:
        if member.state == "grouping" and member.weight == -1:
            assert found[member.service] == pytest.approx(replicas.get(member.service, 0) / total)


@given(MODES, MEMBERS, REPLICAS, st.randoms(use_true_random=False))
def test_the_order_of_members_says_nothing(
    mode: Mode, members: Members, replicas: dict[str, int], chance: Random
) -> None:
    turned = list(members)
    chance.shuffle(turned)
    assert shares(mode, turned, replicas) == pytest.approx(shares(mode, members, replicas))


@given(MODES, MEMBERS, REPLICAS)
def test_a_standalone_member_changes_nothing_for_the_others(
    mode: Mode, members: Members, replicas: dict[str, int]
) -> None:
    others = tuple(m for m in members if m.state == "grouping")
    found = shares(mode, members, replicas)
    assert shares(mode, others, replicas) == pytest.approx({m.service: found[m.service] for m in others})


@given(MEMBERS, REPLICAS)
def test_all_of_weight_minus_one_is_auto(members: Members, replicas: dict[str, int]) -> None:
    plain = tuple(replace(m, weight=-1) for m in members)
    assert shares("customized", plain, replicas) == shares("auto", plain, replicas)


@pytest.mark.parametrize(
    ("mode", "members", "replicas", "expected"),
    [
        ("auto", (grouping("aaa"), grouping("bbb")), {"aaa": 9, "bbb": 1}, {"aaa": 0.9, "bbb": 0.1}),
        ("customized", (grouping("aaa", 75), grouping("bbb", 25)), {"aaa": 1, "bbb": 8}, {"aaa": 0.75, "bbb": 0.25}),
        # 2 of 8 replicas first, then 3 to 1 of what is left
        ("customized", (grouping("aaa"), grouping("bbb", 30), grouping("ccc", 10)), {"aaa": 2, "bbb": 1, "ccc": 5},
         {"aaa": 0.25, "bbb": 0.5625, "ccc": 0.1875}),
        # replicas of a member of weight 0 count, its requests go to the others
        ("customized", (grouping("aaa"), grouping("bbb", 7), grouping("ccc", 0)), {"aaa": 1, "bbb": 1, "ccc": 2},
         {"aaa": 0.25, "bbb": 0.75, "ccc": 0.0}),
        ("customized", (grouping("aaa"), grouping("bbb", 0)), {"aaa": 1, "bbb": 3}, {"aaa": 1.0, "bbb": 0.0}),
        ("customized", (grouping("aaa", 900), grouping("bbb", 0)), {"bbb": 3}, {"aaa": 1.0, "bbb": 0.0}),
        ("auto", (grouping("aaa"), grouping("bbb")), {}, {"aaa": 0.5, "bbb": 0.5}),
        ("auto", (GroupMember(service="aaa"),), {"aaa": 3}, {"aaa": 0.0}),
        ("auto", (), {}, {}),
    ],
)  # fmt: skip
def test_by_example(mode: Mode, members: Members, replicas: Mapping[str, int], expected: dict[str, float]) -> None:
    assert shares(mode, members, replicas) == pytest.approx(expected)
