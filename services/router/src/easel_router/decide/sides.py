"""What a comparison is between. Pure.

A report is about two fixed sides and one way to compare: when the target, the revision of either side or the options
become others, what was counted before says nothing any more, and a new report begins.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from easel_contracts.facts import ReplicaState, ServiceState
from easel_contracts.spec import CANDIDATE, Comparison
from easel_router.decide.snapshot import takes_traffic


class Side(Struct, frozen=True, kw_only=True):
    """Some revisions of one service: one, or while a whole service that is being rolled out is meant, both."""

    service: str
    uid: str
    revisions: tuple[int, ...]


class Sides(Struct, frozen=True, kw_only=True):
    """Whose answers are compared, and how."""

    target: str
    """As it was set: a service, or CANDIDATE."""
    stable: Side
    candidate: Side
    how: Comparison


def sides(state: ServiceState | None, target: ServiceState | None) -> Sides | None:
    """What is compared of a service now; None: nothing is, or what it would be compared with is not there.

    `target` is the state of the service that its mirror names; not looked at where that is CANDIDATE.
    """
    if state is None or state.wanted == "deleted":
        return None
    if state.mirroring is None or state.mirroring.compare is None or not state.mirroring.percent:
        return None
    wanted = target_of(state)
    if wanted == CANDIDATE:
        if state.rollout is None:
            return None
        stable = Side(service=state.name, uid=state.uid, revisions=(state.rollout.stable.number,))
        candidate = Side(service=state.name, uid=state.uid, revisions=(state.revision.number,))
    elif target is None or target.wanted == "deleted":
        return None
    else:
        stable, candidate = _whole(state), _whole(target)
    return Sides(target=wanted, stable=stable, candidate=candidate, how=state.mirroring.compare)


def target_of(state: ServiceState) -> str:
    """The one target that answers are compared with; empty: none is set."""
    return next(iter(state.mirroring.targets), "") if state.mirroring is not None else ""


def answers(side: Side, replicas: Iterable[ReplicaState]) -> bool:
    """Whether a replica of this side takes traffic: a copy must not wait for one, nor wake a service."""
    return any(takes_traffic(replica) and replica.revision in side.revisions for replica in replicas)


def _whole(state: ServiceState) -> Side:
    """The service as it is: its requests are answered by whichever revision has replicas."""
    before = (state.rollout.stable.number,) if state.rollout is not None else ()
    return Side(service=state.name, uid=state.uid, revisions=(*before, state.revision.number))
