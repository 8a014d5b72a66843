"""Which of the nodes that may take a replica does. Lowest score wins; ties go to the first id."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node


def score(node: Node, need: Need) -> tuple[int, float, str]:
    """Fewest replicas of the service (spread), then least allocated after placing, then the id."""
    return (node.of_service, allocated(node, need), node.id)


def allocated(node: Node, need: Need) -> float:
    """Share of the scarcer of cores and memory that would be reserved, 0 to 1."""
    cpu = (node.cpu_reserved + need.resources.cpu) / node.cpu if node.cpu else 0.0
    memory = (node.memory_reserved_mib + need.resources.memory_mib) / node.memory_mib if node.memory_mib else 0.0
    return max(cpu, memory)
