"""Plans of groups: whatever the members, requests go to who can answer them, and to nobody else."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.facts import GroupMember, GroupState
from easel_contracts.spec import Match, Split
from easel_router.decide.groups import WHOLE, plan, problems
from easel_router.decide.snapshot import Hold, ServicePlan, Token, TokenSet
from easel_router.testing import a_plan
from easel_router.xds.groups import render_group
from easel_router.xds.messages import ROUTE

NAMES = ("a", "b", "c", "d")
TOKENS = TokenSet(tokens=(Token(value="group-tok"),), version=1)
World = tuple[GroupState, dict[str, ServicePlan]]


@st.composite
def members(draw: st.DrawFn, name: str) -> ServicePlan:
    """With replicas, waiting for one, failed, or stopped."""
    kind = draw(st.sampled_from(("serving", "waiting", "failed", "stopped")))
    if kind == "serving":
        return a_plan(name, *range(1, 1 + draw(st.integers(1, 4))))
    hold = {"waiting": Hold(max_requests=9), "failed": Hold(max_requests=9, hopeless="it cannot start")}.get(kind)
    return a_plan(name, hold=hold)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    names = sorted(draw(st.lists(st.sampled_from(NAMES), unique=True)))
    state = GroupState(
        uid="u", name="vision", generation=1, mode=draw(st.sampled_from(("auto", "customized"))),
        members=tuple(
            GroupMember(service=name, state=draw(st.sampled_from(("grouping", "grouping", "standalone"))),
                        weight=draw(st.sampled_from((-1, 0, 1, 7, 1000))))
            for name in names
        ),
        split=draw(st.sampled_from((None, Split(weight_permille=100),
                                    Split(weight_permille=0, match=Match(kind="header", name="x", value="y"))))),
        candidate=draw(st.sampled_from(("", *NAMES))),
    )  # fmt: skip
    return state, {name: draw(members(name)) for name in names if draw(st.integers(0, 5))}


@given(worlds())
def test_always_consistent(world: World) -> None:
    """Nothing that would let strangers in or lead nowhere; the shares are the whole."""
    made = plan(world[0], TOKENS, world[1], "default")

    assert list(problems(made)) == []
    assert not made.shares or abs(sum(share.weight for share in made.shares) - WHOLE) <= len(made.shares)
    grouping = {m.service for m in world[0].members if m.state == "grouping"}
    assert {share.service for share in made.shares} <= grouping & set(world[1])


@given(worlds())
def test_nobody_without_a_replica_gets_a_request_that_another_could_answer(world: World) -> None:
    """Of the members that share, and between the sides of a split."""
    state, plans = world
    made = plan(state, TOKENS, plans, "default")
    shared = [plans[share.service] for share in made.shares]
    if any(p.serving for p in shared):
        assert all(p.serving for p in shared)
    else:
        assert len(shared) <= 1
    if made.split is not None:
        candidate = bool(plans[made.split.candidate].serving)
        stable = any(p.serving for p in shared)
        if candidate != stable:
            assert made.split.permille == (1000 if candidate else 0)
            assert candidate or made.split.match is None


@given(worlds())
def test_where_none_has_a_replica_the_request_waits_where_one_will_come(world: World) -> None:
    """Not at a member that is stopped or failed, as long as another one only waits."""
    state, plans = world
    alike = msgspec.structs.replace(state, mode="auto", split=None)
    taking = {m.service for m in alike.members if m.state == "grouping"} & set(plans)
    none = {name: p if not p.serving else a_plan(name, hold=Hold(max_requests=9)) for name, p in plans.items()}
    made = plan(alike, TOKENS, none, "default")

    waiting = {name for name in taking if (hold := none[name].hold) is not None and not hold.hopeless}
    assert len(made.shares) == (1 if taking else 0)
    assert not waiting or made.shares[0].service in waiting


@given(worlds())
def test_every_member_has_an_endpoint_of_its_own(world: World) -> None:
    """Whether it takes part or not; and the same plan gives the same bytes."""
    made = plan(world[0], TOKENS, world[1], "default")
    scopes = render_group(made, "s").by_type[ROUTE]

    assert set(scopes) == {"vision", *(f"vision.{name}" for name in world[1])} == set(made.scopes)
    assert render_group(made, "s") == render_group(plan(world[0], TOKENS, world[1], "default"), "s")


@given(worlds(), st.sampled_from(NAMES))
def test_a_members_token_does_not_open_the_group(world: World, name: str) -> None:
    """Only its own endpoint there."""
    state, plans = world
    made = plan(state, TOKENS, {**plans, name: a_plan(name, 1, token="tok-of-member")}, "default")
    scopes = render_group(made, "s").by_type[ROUTE]

    assert [scope for scope, body in scopes.items() if b"tok-of-member" in body] == [f"vision.{name}"]
    assert all(b"group-tok" in body for body in scopes.values())
