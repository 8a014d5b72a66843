"""How many replicas, and where they go."""

from __future__ import annotations

from typing import Any

import pytest

from easel_contracts.facts import ServiceState
from easel_contracts.spec import Autoscaling, GitSource, Image, Mount, Resources
from easel_scheduler.decide.filters import refusal
from easel_scheduler.decide.placing import choose
from easel_scheduler.decide.wanted import wanted
from easel_scheduler.decide.world import Need, Node, NodeRuntime
from tests.unit.scheduler.build import node, revision, scale, service

# How many.

AUTO = Autoscaling(min=2, max=5, targets=(("qps", 10.0),))


@pytest.mark.parametrize(
    ("state", "decision", "count", "code"),
    [
        (service(3), None, 3, "SpecInstance"),
        (service(3), scale(7), 7, "ScaleDecided"),
        (service(3, wanted="stopped"), scale(7), 0, "ServiceStopped"),
        (service(3, wanted="deleted"), scale(7), 0, "ServiceDeleted"),
        (service(9, autoscaling=AUTO), None, 5, "SpecInstance"),
        (service(1, autoscaling=AUTO), None, 2, "SpecInstance"),
        (service(4, generation=6, instance_generation=6), scale(7, 5), 4, "SpecInstance"),
        (service(4, generation=6, autoscaling_generation=6), scale(7, 5), 4, "SpecInstance"),
        (service(4, generation=6, instance_generation=2), scale(7, 5), 7, "ScaleDecided"),
        (service(4, generation=1), scale(7, 2), 7, "ScaleDecided"),
    ],
)
def test_whose_word_counts(state: ServiceState, decision: Any, count: int, code: str) -> None:
    """Stopped overrides; a decision counts unless `instance` or the autoscaler section changed after it."""
    found = wanted(state, decision)

    assert (found.count, found.code) == (count, code)


# Where.


def words(where: Node, need: Need) -> str:
    """Why the node does not take it."""
    found = refusal(where, need)
    assert found is not None
    return found.message


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [
        (node(state="not_ready", silent_s=12), "state", "last heard 12 s ago"),
        (node(cpu=2.0, cpu_reserved=1.5), "cpu", "short by 0.5 cores: 1 asked for, 1.5 of 2 are reserved"),
        (node(cpu=0.5), "cpu", "the node has 0.5 in all"),
        (node(memory_mib=150, memory_reserved_mib=100), "memory", "short by 50 MiB"),
        (node(memory_mib=50), "memory", "has 50 MiB in all"),
    ],
)
def test_each_refusal_has_a_name_and_numbers(where: Node, name: str, words: str) -> None:
    """The first filter that refuses is told."""
    found = refusal(where, Need.of(revision()))

    assert found is not None
    assert found.filter == name
    assert words in found.message


def test_gpus_are_whole() -> None:
    """A node without GPUs, and one whose GPUs are taken."""
    need = Need(Resources(cpu=1, memory_mib=1, gpu=2), ())

    assert "has none" in words(node(), need)
    assert "short by 1 GPUs" in words(node(gpu=2, gpu_reserved=1), need)
    assert refusal(node(gpu=2), need) is None


def test_mounts_need_a_node_that_can_mount() -> None:
    """Except a path that keeps its own name."""
    cannot = node(can_mount=False, can_mount_why_not="not root")
    moved = Need.of(revision(mounts=(Mount(mount_path="/models", host_path="/data"),)))
    kept = Need.of(revision(mounts=(Mount(mount_path="/data", host_path="/data"),)))

    assert "cannot mount /models: not root" in words(cannot, moved)
    assert refusal(cannot, kept) is None
    assert refusal(node(), moved) is None


def test_sums_of_fractions_are_no_shortage() -> None:
    """0.1 + 0.2 + 0.7 cores fit on one core."""
    assert refusal(node(cpu=1.0, cpu_reserved=0.1 + 0.2), Need.of(revision(cpu=0.7))) is None


def test_spread_comes_before_load_and_ties_go_to_the_first_name() -> None:
    """A node without the service wins over an emptier one; equal nodes: by id."""
    need = Need.of(revision())
    empty, loaded = node("a", of_service=1), node("b", cpu_reserved=6.0)

    assert choose(need, (empty, loaded))[0].node == "b"
    assert choose(need, (node("b"), node("a")))[0].node == "a"
    assert choose(need, (node("a", cpu_reserved=1.0), node("b")))[0].node == "b"


def test_what_no_node_could_ever_take_is_told_apart() -> None:
    """Too large for every node, empty or not; a lost node that is large enough may come back."""
    need = Need.of(revision(cpu=16))

    never = choose(need, (node("a", cpu_reserved=6.0), node("b", state="lost")))[0].why
    assert never.code == "TooLarge"
    assert "a: too small by 8 cores: 16 asked for, the node has 8 in all" in never.message
    assert choose(need, (node("a"), node("b", cpu=32, state="lost")))[0].why.code == "NoCapacity"
    assert choose(need, ())[0].why.code == "NoNode"


def test_no_room_names_every_node_and_what_would_help() -> None:
    """Nothing fits: all reasons, one sentence."""
    choice, nodes = choose(Need.of(revision(cpu=4)), (node("a", cpu_reserved=6.0), node("b", state="lost")))

    assert choice.node is None
    assert choice.why.code == "NoCapacity"
    assert "a: short by 2 cores" in choice.why.message
    assert "b: the node is lost" in choice.why.message
    assert "add a node" in choice.why.message
    assert nodes[0].cpu_reserved == 6.0


# What runs it there.

CONTAINERS = (NodeRuntime(name="process"), NodeRuntime(name="docker", version="Docker 20.10.24, overlay2"))
IMAGE = Image(reference="registry.example.com/team/ocr:1.2")


def test_a_container_needs_an_engine_and_a_process_an_agent_that_runs_processes() -> None:
    """The agent's own words; an agent that does not say runs processes only."""
    container, process = Need.of(revision(image=IMAGE)), Need.of(revision())
    down = node(runtimes=(NodeRuntime(name="process"), NodeRuntime(name="docker", why_not="the socket is not there")))
    only = node(runtimes=(NodeRuntime(name="process", why_not="EASEL_RUNTIMES names docker only"), CONTAINERS[1]))

    assert words(node(), container) == "no Docker engine: its agent does not know of one"
    none = node(runtimes=(NodeRuntime(name="docker", why_not="no Docker engine is configured on this node"),))
    assert words(none, container) == "no Docker engine is configured on this node"
    assert words(down, container) == "no Docker engine: the socket is not there"
    assert words(only, process) == "no processes here: EASEL_RUNTIMES names docker only"
    assert refusal(node(runtimes=CONTAINERS), container) is None
    assert refusal(down, process) is None


def test_a_node_is_asked_for_its_runtime_before_its_room() -> None:
    """Room would not help; a silent node's runtimes are old news."""
    need = Need.of(revision(cpu=16, image=IMAGE))

    for where, name in ((node(), "runtime"), (node(state="lost"), "state"), (node(runtimes=CONTAINERS), "cpu")):
        found = refusal(where, need)
        assert found is not None
        assert found.filter == name


def test_a_container_mounts_on_any_node() -> None:
    """The engine does it, whatever the agent may."""
    cannot = node(can_mount=False, can_mount_why_not="not root", runtimes=CONTAINERS)
    mounts = (Mount(mount_path="/models", host_path="/data"), Mount(mount_path="/git", source=GitSource(repo="r")))

    assert refusal(cannot, Need.of(revision(image=IMAGE, mounts=mounts))) is None
    assert "cannot mount /models, /git: not root" in words(cannot, Need.of(revision(mounts=mounts)))


def test_no_engine_anywhere_is_told_apart_from_no_room() -> None:
    """It is no shortage: asking for less would not help. Where one node has an engine, it is."""
    need = Need.of(revision(cpu=16, image=IMAGE))

    why = choose(need, (node("a"), node("b")))[0].why
    assert why.code == "NoRuntime"
    assert "a: no Docker engine: its agent does not know of one; b: no Docker engine" in why.message
    mixed = choose(need, (node("a", cpu=32), node("b", cpu=32, runtimes=CONTAINERS, cpu_reserved=20)))[0].why
    assert mixed.code == "NoCapacity"
    assert choose(need, (node("a"), node("b", cpu=32, runtimes=CONTAINERS)))[0].node == "b"
