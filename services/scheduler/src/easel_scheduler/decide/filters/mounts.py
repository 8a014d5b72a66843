"""Refuses nodes that cannot show a process its mounts."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node

NAME = "mounts"


def refuse(node: Node, need: Need) -> str | None:
    """A path of the node that keeps its own name needs no mount."""
    if node.can_mount:
        return None
    needed = [path for path, host_path in need.mounts if path != host_path]
    if not needed:
        return None
    return f"the node cannot mount {', '.join(needed)}: {node.can_mount_why_not or 'its agent does not say why'}"
