"""Reasons to refuse a node, one per file: a name, a verdict, a sentence with numbers. In order of asking."""

from __future__ import annotations

from easel_scheduler.decide.filters import cpu, gpu, memory, mounts, runtime, state
from easel_scheduler.decide.world import Need, Node, Refusal

ALL = (state, runtime, mounts, cpu, memory, gpu)


def refusal(node: Node, need: Need) -> Refusal | None:
    """The first filter that refuses this node, or None when it may take the replica."""
    for each in ALL:
        message = each.refuse(node, need)
        if message is not None:
            return Refusal(node=node.id, filter=each.NAME, message=message)
    return None
