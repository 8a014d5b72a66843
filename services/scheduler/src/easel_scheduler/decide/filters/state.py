"""Refuses nodes that are not ready."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node

NAME = "state"


def refuse(node: Node, need: Need) -> str | None:
    """A node whose agent is silent takes nothing new."""
    if node.state == "ready":
        return None
    return f"the node is {node.state.replace('_', ' ')}: its agent was last heard {node.silent_s:.0f} s ago"
