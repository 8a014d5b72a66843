"""Refuses nodes that cannot run what the replica is: a process, or a container of an engine."""

from __future__ import annotations

from easel_scheduler.decide.world import Need, Node, Refusal

NAME = "runtime"

MISSING = {"process": "no processes here", "docker": "no Docker engine"}
"""Runtime → what a node without it lacks."""


def refuse(node: Node, need: Need) -> str | None:
    """In the words of the node's agent."""
    found = next((r for r in node.runtimes if r.name == need.runtime), None)
    if found is not None and not found.why_not:
        return None
    why = found.why_not if found is not None else "its agent does not know of one"
    return lacks(need.runtime, why)


def lacks(runtime: str, why: str) -> str:
    """A sentence that begins with what is lacking, as some of the agents' own do."""
    missing = MISSING.get(runtime, f"no {runtime}")
    return why if why.startswith(missing) else f"{missing}: {why}"


def lacking(refusals: tuple[Refusal, ...]) -> bool:
    """Whether every node refused for this reason."""
    return bool(refusals) and all(r.filter == NAME for r in refusals)
