"""Where replicas go. Never beyond a node's capacity; when nothing fits, which resource is short by how much."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from easel_scheduler.decide.filters import refusal, runtime
from easel_scheduler.decide.filters.cpu import ROUNDING
from easel_scheduler.decide.score import allocated, score
from easel_scheduler.decide.world import Need, Node, Reason, Refusal, Replica


class Choice(Struct, frozen=True):
    """A node, or None with the refusals of all."""

    node: str | None
    why: Reason
    refusals: tuple[Refusal, ...]


def choose(need: Need, nodes: tuple[Node, ...]) -> tuple[Choice, tuple[Node, ...]]:
    """The best node for one replica, and the nodes with what it reserves taken off."""
    refusals = []
    fitting = []
    for node in nodes:
        refused = refusal(node, need)
        if refused is None:
            fitting.append(node)
        else:
            refusals.append(refused)
    if not fitting:
        never = bool(nodes) and all(_too_small(node, need) for node in nodes)
        return Choice(None, _no_room(need, tuple(refusals), never=never), tuple(refusals)), nodes
    best = min(fitting, key=lambda node: score(node, need))
    after = tuple(_reserve(node, need) if node.id == best.id else node for node in nodes)
    return Choice(best.id, _chosen(best, need, len(fitting)), tuple(refusals)), after


def makes_room(r: Replica, need: Need, nodes: tuple[Node, ...]) -> bool:
    """Whether its node would take the need when it is gone."""
    had = r.spec.resources
    freed = (
        replace(node, cpu_reserved=node.cpu_reserved - had.cpu, gpu_reserved=node.gpu_reserved - had.gpu,
                memory_reserved_mib=node.memory_reserved_mib - had.memory_mib)
        for node in nodes if node.id == r.node
    )  # fmt: skip
    return any(refusal(node, need) is None for node in freed)


def _reserve(node: Node, need: Need) -> Node:
    return replace(
        node,
        cpu_reserved=node.cpu_reserved + need.resources.cpu,
        memory_reserved_mib=node.memory_reserved_mib + need.resources.memory_mib,
        gpu_reserved=node.gpu_reserved + need.resources.gpu,
        of_service=node.of_service + 1,
    )


def _chosen(node: Node, need: Need, fitting: int) -> Reason:
    beside = f"{node.of_service} other replicas of the service there" if node.of_service else "none of the service yet"
    share = f"{allocated(node, need):.0%} of it reserved afterwards"
    if fitting == 1:
        return Reason("OnlyNodeWithRoom", f"{node.id} is the only node with room ({beside}, {share})")
    return Reason("SpreadThenLeastAllocated", f"{node.id} is the best of {fitting} nodes with room ({beside}, {share})")


def _too_small(node: Node, need: Need) -> bool:
    """Whether the node could not take one replica even when it is empty and ready."""
    asked = need.resources
    return asked.cpu > node.cpu + ROUNDING or asked.memory_mib > node.memory_mib or asked.gpu > node.gpu


def _no_room(need: Need, refusals: tuple[Refusal, ...], *, never: bool) -> Reason:
    asked = f"{need.resources.cpu:g} cores and {need.resources.memory_mib} MiB of memory"
    if need.resources.gpu:
        asked += f" and {need.resources.gpu} GPUs"
    if not refusals:
        return Reason("NoNode", f"no node has joined yet; the replica asks for {asked}")
    each = "; ".join(f"{r.node}: {r.message}" for r in refusals)
    if runtime.lacking(refusals):
        return Reason("NoRuntime", f"no node can run it. {each}. It is placed when one of them can, or another joins")
    if never:
        help_ = "No node could take it even when empty: lower what it asks for, or add a larger node"
        return Reason("TooLarge", f"no node takes a replica with {asked}. {each}. {help_}")
    return Reason("NoCapacity", f"no node takes a replica with {asked}. {each}. {_what_would_help(refusals)}")


def _what_would_help(refusals: tuple[Refusal, ...]) -> str:
    if any("short by" in r.message for r in refusals):
        return "Stop or scale in another service, lower metadata.cpu or metadata.memory, or add a node"
    return "It is placed when a node is ready again, or when a larger one joins"
