"""What a node says of itself: state with its numbers, holders, what it cannot do."""

from __future__ import annotations

from easel_scheduler.decide.explain import Line
from easel_scheduler.decide.explain_node import explain_node
from easel_scheduler.decide.world import Holder, Node, NodeRuntime

RUNTIMES = (NodeRuntime(name="process"), NodeRuntime(name="docker", why_not="the socket is not there"))


def explained(state: str = "ready", *, connected: bool = True, silent_s: float = 0.4) -> dict[str, Line]:
    holders = (Holder(service="ocr", replicas=2, cpu=2, memory_mib=1000),)
    node = Node(
        id="n1", state=state, cpu=4, memory_mib=8000, can_mount=False, can_mount_why_not="not root", cpu_reserved=2,
        memory_reserved_mib=1000, gpu=2, gpu_reserved=1, of_service=0, holders=holders, silent_s=silent_s,
        capacity="accounted: only counted", runtimes=RUNTIMES,
    )  # fmt: skip
    lines = explain_node(node, connected=connected, lease_s=10, lost_s=60, isolation="uid", limits="cgroup v2")
    return {line.code: line for line in lines}


def test_a_ready_node_tells_what_is_reserved_by_whom() -> None:
    lines = explained()

    assert "heard 0.4 s ago" in lines["NodeReady"].message
    assert "2 of 4 cores and 1000 of 8000 MiB are reserved; 2 cores and 7000 MiB are free" in lines["Capacity"].message
    assert "1 of 2 GPUs are taken" in lines["Capacity"].message
    assert lines["CapacityIs"].message == "its cores and memory: accounted: only counted"
    assert lines["Runs"].message == "processes can run here"
    assert lines["RunsNot"].message == "containers cannot run here: the socket is not there"
    assert lines["Holds"].message == "ocr: 2 replicas hold 2 cores and 1000 MiB"
    assert "uid" in lines["Isolation"].message
    assert "cgroup v2" in lines["Limits"].message
    assert "not root" in lines["NoMounts"].message


def test_a_silent_node_says_how_long_and_what_comes() -> None:
    line = explained("not_ready", connected=False, silent_s=21)["NodeNotReady"]

    assert "heard 21.0 s ago, longer than its lease of 10 s" in line.message
    assert "after 60 s" in line.message
    assert line.hint
