"""Promises of the plan, in random worlds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_scheduler.decide.plan import plan
from tests.property.scheduler.simulator import World
from tests.unit.scheduler.build import node, scale

nodes = st.lists(
    st.builds(
        lambda cpu, memory: (cpu, memory), st.sampled_from([1.0, 2.0, 4.0, 16.0]), st.sampled_from([100, 250, 4000])
    ),
    min_size=0,
    max_size=3,
).map(lambda sizes: tuple(node(f"n{i}", cpu=cpu, memory_mib=memory) for i, (cpu, memory) in enumerate(sizes)))

moves = st.one_of(
    st.tuples(
        st.just("agent"), st.integers(0, 3), st.sampled_from(["starting", "unready", "failed", "lost", "stopped"])
    ),
    st.tuples(st.just("agent"), st.integers(0, 3), st.just("ready")),
    st.tuples(st.just("all ready")),
    st.tuples(st.just("route")),
    st.tuples(st.just("time"), st.sampled_from([0.5, 5.0, 40.0])),
    st.tuples(st.just("release"), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([60, 100, 110])),
    st.tuples(st.just("instance"), st.integers(0, 6)),
    st.tuples(st.just("decide"), st.integers(0, 6)),
    st.tuples(st.just("wanted"), st.sampled_from(["running", "stopped", "deleted"])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("node"), st.integers(0, 2), st.sampled_from(["ready", "not_ready", "lost"])),
)  # fmt: skip


def act(world: World, move: tuple[object, ...]) -> None:
    """One thing that somebody else does."""
    match move:
        case ("agent", int(number), str(state)):
            world.agent_moves(number, state)
        case ("all ready",):
            for _ in world.live():
                world.agent_moves(0, "ready")
        case ("route",):
            world.router_applies()
        case ("time", float(seconds)):
            world.pass_time(seconds)
        case ("release", float(cpu), int(memory_mib)):
            world.release(cpu, memory_mib)
        case ("restart",):
            rev = world.service.revision
            world.service = replace(world.service, revision=replace(rev, restart_nonce=rev.restart_nonce + 1))
        case ("instance", int(count)):
            generation = world.service.generation + 1
            world.service = replace(
                world.service, instance=count, generation=generation, instance_generation=generation
            )
        case ("decide", int(count)):
            number = world.scale.number + 1 if world.scale else 1
            world.scale = scale(count, world.service.generation, number)
        case ("wanted", ("running" | "stopped" | "deleted") as wanted):
            world.service = replace(world.service, wanted=wanted)
        case ("node", int(index), str(state)) if index < len(world.nodes):
            world.nodes = tuple(replace(n, state=state) if i == index else n for i, n in enumerate(world.nodes))


def live_through(world: World, life: list[tuple[object, ...]]) -> None:
    for move in life:
        act(world, move)
        world.plan_once()


@settings(max_examples=400, deadline=None)
@given(nodes, st.integers(0, 5), st.lists(moves, max_size=40))
def test_no_plan_breaks_a_promise(nodes, instance, life):  # type: ignore[no-untyped-def]
    """Whatever happens, in whatever order: counts, capacity, health and the table of states are kept."""
    live_through(World(nodes, instance), life)


@settings(max_examples=200, deadline=None)
@given(nodes, st.integers(0, 5), st.lists(moves, max_size=25))
def test_applied_twice_equals_once(nodes, instance, life):  # type: ignore[no-untyped-def]
    """After a plan is carried out, the next one in the same moment changes nothing."""
    world = World(nodes, instance)
    live_through(world, life)
    world.plan_once()

    assert not plan(world.snapshot()).changes
    assert plan(world.snapshot()) == plan(world.snapshot())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), st.lists(moves, max_size=25), st.integers(0, 6))
def test_converges_to_what_is_wanted(instance, life, finally_wanted):  # type: ignore[no-untyped-def]
    """When everybody does his work and there is room, the wanted number of the newest revision serves."""
    world = World((node("n0", cpu=1000.0, memory_mib=1_000_000),), instance)
    live_through(world, life)
    world.nodes = tuple(replace(n, state="ready") for n in world.nodes)
    world.service = replace(world.service, wanted="running")
    world.scale = scale(finally_wanted, world.service.generation, 10_000)

    assert world.settle()
    assert [r.state for r in world.live()] == ["ready"] * finally_wanted
    assert all(r.identity == world.identity() for r in world.live())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5))
def test_a_revision_that_never_serves_spends_nothing(instance):  # type: ignore[no-untyped-def]
    """However long a broken release is tried, what served before it still serves."""
    world = World((node("n0", cpu=1000.0, memory_mib=1_000_000),), instance)
    assert world.settle()
    served = {r.id for r in world.live()}
    world.release(1.0)

    for _ in range(30):
        world.plan_once()
        for r in world.live():
            if r.id not in served and r.state == "placed":
                world.move(r.id, "failed")
        world.router_applies()
        world.pass_time(7.0)

    assert {r.id for r in world.live() if r.state == "ready"} == served
