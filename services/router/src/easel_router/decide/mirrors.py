"""Who gets copies of whose requests, and which replicas those are: pure.

A target's own plan holds the cluster for copies, as long as anybody mirrors to it: so a change of its replicas is its
own matter, whoever mirrors, and for a target that is at zero, deleted or unknown there is no cluster and no copy.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from easel_contracts.facts import ServiceState
from easel_contracts.spec import CANDIDATE, Mirroring

Shadow = Literal["all", "stable", "candidate"]
"""Which of a service's replicas: whatever they are of, or those of one side of a rollout."""

SHADOWS: tuple[Shadow, ...] = ("all", "stable", "candidate")


def realised_mirroring(state: ServiceState) -> Mirroring | None:
    """What of the wanted mirroring can be done now: without a rollout there is no candidate."""
    wanted = state.mirroring
    if wanted is None or wanted.percent <= 0 or state.wanted == "deleted":
        return None
    targets = tuple(t for t in wanted.targets if t != state.name and (t != CANDIDATE or state.rollout is not None))
    return msgspec.structs.replace(wanted, targets=targets) if targets else None


def other_targets(state: ServiceState) -> frozenset[str]:
    """Other services that get copies of its requests."""
    found = realised_mirroring(state)
    return frozenset(found.targets if found else ()) - {CANDIDATE}


def shadows(mirroring: Mirroring | None, *, is_target: bool) -> tuple[Shadow, ...]:
    """Clusters for copies that the service needs: for those of others, and for the two sides of its own comparison."""
    needed: list[Shadow] = ["all"] if is_target else []
    if mirroring is not None and CANDIDATE in mirroring.targets:
        needed.append("candidate")
    if mirroring is not None and mirroring.compare is not None:
        needed.append(base_of(mirroring))
    return tuple(sorted(set(needed)))


def base_of(mirroring: Mirroring) -> Shadow:
    """What a target is compared with: the stable side where it is the candidate, else the service as it is."""
    return "stable" if CANDIDATE in mirroring.targets else "all"
