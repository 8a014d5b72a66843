"""Refuses nodes with too few free cores."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node

NAME = "cpu"

ROUNDING = 1e-6
"""Sums of fractions of cores are not exact; a millionth of a core is not a shortage."""


def refuse(node: Node, need: Need) -> str | None:
    """Cores are reserved, not measured."""
    asked = need.resources.cpu
    if asked > node.cpu + ROUNDING:
        return f"too small by {asked - node.cpu:g} cores: {asked:g} asked for, the node has {node.cpu:g} in all"
    short = asked - (node.cpu - node.cpu_reserved)
    if short <= ROUNDING:
        return None
    reserved = f"{node.cpu_reserved:g} of {node.cpu:g} are reserved{node.held_by('cpu')}"
    return f"short by {short:g} cores: {asked:g} asked for, {reserved}"
