"""Refuses nodes with too little free memory."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node

NAME = "memory"


def refuse(node: Node, need: Need) -> str | None:
    """Memory is reserved, not measured."""
    asked = need.resources.memory_mib
    if asked > node.memory_mib:
        lacking = asked - node.memory_mib
        return f"too small by {lacking} MiB of memory: {asked} MiB asked for, the node has {node.memory_mib} MiB in all"
    short = asked - (node.memory_mib - node.memory_reserved_mib)
    if short <= 0:
        return None
    return (
        f"short by {short} MiB of memory: {asked} MiB asked for, "
        f"{node.memory_reserved_mib} of {node.memory_mib} MiB are reserved{node.held_by('memory_mib')}"
    )
