"""Why a node has its state, and who holds what of it. Pure: the row's facts in, sentences out."""

from __future__ import annotations

from easel_scheduler.decide.explain import Line
from easel_scheduler.decide.world import Node, NodeRuntime

RUNS = {"process": "processes", "docker": "containers"}
"""Runtime → what it runs."""


def explain_node(
    node: Node, *, connected: bool, lease_s: float, lost_s: float, isolation: str, limits: str
) -> tuple[Line, ...]:
    """State and lease, what is free, each service that holds some, and what the node can and cannot do."""
    lines = [_state(node, connected=connected, lease_s=lease_s, lost_s=lost_s)]
    free_cpu, free_mib = node.cpu - node.cpu_reserved, node.memory_mib - node.memory_reserved_mib
    gpus = f", {node.gpu_reserved} of {node.gpu} GPUs are taken" if node.gpu else ""
    lines.append(
        Line("Capacity", f"{node.cpu_reserved:g} of {node.cpu:g} cores and {node.memory_reserved_mib} of "
             f"{node.memory_mib} MiB are reserved; {free_cpu:g} cores and {free_mib} MiB are free{gpus}")
    )  # fmt: skip
    if node.capacity:
        lines.append(Line("CapacityIs", f"its cores and memory: {node.capacity}"))
    for h in sorted(node.holders, key=lambda h: (-h.memory_mib, h.service)):
        lines.append(Line("Holds", f"{h.service}: {h.replicas} replicas hold {h.cpu:g} cores and {h.memory_mib} MiB"))
    lines += [_runtime(found) for found in node.runtimes]
    lines.append(Line("Isolation", f"replicas are isolated by: {isolation or 'not known'}"))
    lines.append(Line("Limits", f"CPU and memory are limited by: {limits or 'not known'}"))
    if not node.can_mount:
        lines.append(Line("NoMounts", f"storage cannot be mounted: {node.can_mount_why_not or 'the agent said so'}"))
    return tuple(lines)


def _runtime(found: NodeRuntime) -> Line:
    what = RUNS.get(found.name, found.name)
    if not found.why_not:
        return Line("Runs", f"{what} can run here{f': {found.version}' if found.version else ''}")
    return Line("RunsNot", f"{what} cannot run here: {found.why_not}")


def _state(node: Node, *, connected: bool, lease_s: float, lost_s: float) -> Line:
    heard = f"its agent was heard {node.silent_s:.1f} s ago"
    if node.state == "ready":
        link = "connected" if connected else "not connected now"
        return Line("NodeReady", f"{node.id} is ready: {heard}, its lease is {lease_s:g} s, and it is {link}")
    if node.state == "not_ready":
        return Line("NodeNotReady", f"{node.id} is not ready: {heard}, longer than its lease of {lease_s:g} s; nothing "
                    f"new is placed here, and after {lost_s:g} s of silence its replicas are replaced elsewhere",
                    "see with `easel status` whether its agent runs")  # fmt: skip
    return Line("NodeLost", f"{node.id} is {node.state}: {heard}; its replicas were given up",
                "start its agent: the node joins again by itself")  # fmt: skip
