"""The two sides of a split: which one a replica is on, and how much each can have now. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from easel_contracts.facts import ReplicaState, ServiceState
from easel_contracts.spec import Split

Arm = Literal["stable", "candidate"]

WHOLE = 1000
"""All requests, in the unit of Split.weight_permille."""


def arm_of(state: ServiceState, replica: ReplicaState) -> Arm:
    """candidate: of the revision that a rollout brings. Without a rollout all are stable."""
    if state.rollout is None:
        return "stable"
    return "candidate" if is_present(state, replica) else "stable"


def is_present(state: ServiceState, replica: ReplicaState) -> bool:
    """Whether it is of the revision (and restart) that the service shall have."""
    present = state.revision
    return (replica.revision, replica.restart_nonce) == (present.number, present.restart_nonce)


def realised(split: Split | None, serving: Collection[Arm]) -> Split | None:
    """What of the split can be had while replicas of these arms take traffic.

    A side without one gets nothing, not even what `match` names: the other answers everything. Without any, all goes
    the way of stable, where requests wait.
    """
    if split is None:
        return None
    if "candidate" not in serving:
        return msgspec.structs.replace(split, weight_permille=0, match=None)
    if "stable" not in serving:
        return msgspec.structs.replace(split, weight_permille=WHOLE, match=None)
    return split
