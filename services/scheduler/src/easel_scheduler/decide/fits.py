"""Whether replicas would find room now."""

from __future__ import annotations

from easel_contracts.spec import RevisionSpec
from easel_scheduler.decide.placing import choose
from easel_scheduler.decide.world import Need, Node, Reason


def fits(spec: RevisionSpec, replicas: int, nodes: tuple[Node, ...]) -> Reason | None:
    """None: all of them would be placed now; else what the first that would not is short of."""
    need = Need.of(spec)
    for placed in range(replicas):
        choice, nodes = choose(need, nodes)
        if choice.node is None:
            first = f"{placed} of {replicas} replicas would find room: " if placed else ""
            return Reason(choice.why.code, first + choice.why.message)
    return None
