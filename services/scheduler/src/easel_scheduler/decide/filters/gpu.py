"""Refuses nodes with too few free GPUs."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node

NAME = "gpu"


def refuse(node: Node, need: Need) -> str | None:
    """GPUs are whole and taken by one replica."""
    asked = need.resources.gpu
    if not asked:
        return None
    if asked > node.gpu:
        return f"{asked} GPUs asked for, the node has {node.gpu or 'none'}"
    short = asked - (node.gpu - node.gpu_reserved)
    if short <= 0:
        return None
    return f"short by {short} GPUs: {asked} asked for, {node.gpu_reserved} of {node.gpu} are taken{node.held_by('gpu')}"
