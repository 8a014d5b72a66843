"""Where a group's requests go: pure, from the group's state and what is planned for its members.

A group only chooses a member; all else (time limits, retries, holding, a canary between revisions) is the member's own
route. So a replica that comes or goes changes no more than the members' shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from easel_contracts.facts import GroupState
from easel_contracts.shares import shares
from easel_contracts.spec import Match, Sticky
from easel_router.decide import limits
from easel_router.decide.limits import NONE, Limits
from easel_router.decide.snapshot import ServicePlan, Token, TokenSet, token_problems

WHOLE = 1_000_000
"""Weights are parts of this."""


class Share(Struct, frozen=True, kw_only=True):
    """A member that gets requests, and how many of `WHOLE`."""

    service: str
    weight: int


class Member(Struct, frozen=True, kw_only=True):
    """A member at its own endpoint in the group, `GROUP.SERVICE`."""

    service: str
    tokens: tuple[Token, ...]
    """Its own, which open that endpoint beside the group's."""


class MemberSplit(Struct, frozen=True, kw_only=True):
    """A canary between members: who of the callers goes to the candidate."""

    candidate: str
    permille: int
    match: Match | None = None
    sticky: Sticky | None = None
    subject: str = ""


class GroupPlan(Struct, frozen=True, kw_only=True):
    """What Envoy does with one group's path."""

    workspace: str
    group: str
    uid: str
    generation: int
    tokens: tuple[Token, ...]
    token_version: int
    shares: tuple[Share, ...]
    """Sorted by service; empty: no member takes part."""
    members: tuple[Member, ...]
    """All that have a route, sorted by service."""
    split: MemberSplit | None = None
    limits: Limits = NONE
    """What each Envoy lets through to the group's own path, beside the limits of the member that is chosen."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Names of everything that is routed for it: the group, and each member in it."""
        return (self.group, *(endpoint(self.group, member.service) for member in self.members))


def endpoint(group: str, service: str) -> str:
    """A member's name in the paths of its group."""
    return f"{group}.{service}"


def plan(
    state: GroupState, tokens: TokenSet, plans: Mapping[str, ServicePlan], workspace: str, envoys: int = 1
) -> GroupPlan:
    """The plan of one group; `plans` are those of its members that have a route."""
    candidate = state.candidate if state.split is not None and state.candidate in plans else ""
    stable = _stable(state, plans, candidate)
    return GroupPlan(
        workspace=workspace,
        group=state.name,
        uid=state.uid,
        generation=state.generation,
        tokens=tokens.tokens,
        token_version=tokens.version,
        shares=stable,
        members=tuple(Member(service=name, tokens=plans[name].tokens) for name in sorted(plans)),
        split=_split(state, candidate, plans, stable) if candidate else None,
        limits=limits.shares(state.gateway, replicas=0, envoys=envoys, tokens=tokens.tokens),
    )


def problems(plan: GroupPlan) -> Iterable[str]:
    """Self-check: what would let strangers in, or send requests nowhere."""
    yield from token_problems(plan.group, plan.tokens)
    known = {member.service for member in plan.members}
    chosen = [share.service for share in plan.shares]
    if not known.issuperset(chosen):
        yield f"{plan.group}: shares for who has no route: {', '.join(sorted(set(chosen) - known))}"
    if chosen != sorted(set(chosen)) or any(share.weight <= 0 for share in plan.shares):
        yield f"{plan.group}: shares are not sorted, unique and above 0"
    if plan.split is not None and (plan.split.candidate not in known or plan.split.candidate in chosen):
        yield f"{plan.group}: the candidate {plan.split.candidate} has no route, or a share beside its own"


def _stable(state: GroupState, plans: Mapping[str, ServicePlan], candidate: str) -> tuple[Share, ...]:
    """All but the candidate. Where none has a replica, one gets everything, so that its requests wait for one of its
    replicas: the one with the largest share of those that should run."""
    there = [m for m in state.members if m.service in plans and m.service != candidate]
    serving = {m.service: len(plans[m.service].serving) for m in there}
    found = {name: share for name, share in shares(state.mode, there, serving).items() if share > 0}
    if found and not any(serving[name] for name in found):
        best = min(found, key=lambda name: (_hopeless(plans[name]), -found[name], name))
        found = {best: 1.0}
    return tuple(Share(service=name, weight=max(round(found[name] * WHOLE), 1)) for name in sorted(found))


def _hopeless(plan: ServicePlan) -> int:
    """0: its requests wait for a replica; 1: it should run, but cannot; 2: it is stopped."""
    if plan.hold is None:
        return 2
    return 1 if plan.hold.hopeless else 0


def _split(
    state: GroupState, candidate: str, plans: Mapping[str, ServicePlan], stable: tuple[Share, ...]
) -> MemberSplit | None:
    """As asked, unless one side has no replica in traffic and the other has: that one gets everything."""
    asked = state.split
    assert asked is not None
    candidate_serves = bool(plans[candidate].serving)
    stable_serves = any(plans[share.service].serving for share in stable)
    if stable_serves and not candidate_serves:
        return MemberSplit(candidate=candidate, permille=0, subject=asked.subject)
    alone = not stable or (candidate_serves and not stable_serves)
    return MemberSplit(
        candidate=candidate, permille=1000 if alone else asked.weight_permille, match=asked.match,
        sticky=asked.sticky, subject=asked.subject,
    )  # fmt: skip
