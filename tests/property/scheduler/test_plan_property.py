"""Promises of the plan, in random worlds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.spec import RolloutPolicy
from easel_scheduler.decide.parts import limits
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

amounts = st.one_of(st.integers(0, 3), st.sampled_from(["10%", "25%", "50%"]))
policies = st.builds(RolloutPolicy, max_surge=amounts, max_unavailable=amounts).filter(
    lambda p: p.max_surge != 0 or p.max_unavailable not in (0, "10%", "25%", "50%")
)
"""With neither surge nor a missing replica nothing could be replaced: control admits no such service."""

shares = st.sampled_from([0, 20, 50, 100])

moves = st.one_of(
    st.tuples(
        st.just("agent"), st.integers(0, 3), st.sampled_from(["starting", "unready", "failed", "lost", "stopped"])
    ),
    st.tuples(st.just("agent"), st.integers(0, 3), st.just("ready")),
    st.tuples(st.just("all ready")),
    st.tuples(st.just("all work")),
    st.tuples(st.just("agent stops")),
    st.tuples(st.just("agent restarts")),
    st.tuples(st.just("route")),
    st.tuples(st.just("time"), st.sampled_from([0.5, 5.0, 40.0])),
    st.tuples(st.just("release"), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([60, 100, 110]), shares,
              st.booleans()),
    st.tuples(st.just("share"), shares),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("split"), st.sampled_from([0, 10, 500, 1000]), st.booleans()),
    st.tuples(st.just("revert")),
    st.tuples(st.just("finish")),
    st.tuples(st.just("ask"), st.integers(0, 5), st.sampled_from(["soft", "dw", "now", "isolate", "let back"])),
    st.tuples(st.just("instance"), st.integers(0, 6)),
    st.tuples(st.just("decide"), st.integers(0, 6)),
    st.tuples(st.just("wanted"), st.sampled_from(["running", "stopped", "deleted"])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("node"), st.integers(0, 2), st.sampled_from(["ready", "not_ready", "lost"])),
)  # fmt: skip


rollout_moves = st.one_of(
    st.tuples(st.just("agent"), st.integers(0, 6), st.sampled_from(["unready", "failed", "lost", "ready"])),
    st.tuples(st.sampled_from(["all work", "agent stops", "agent restarts", "route", "revert", "finish"])),
    st.tuples(st.just("time"), st.just(40.0)),
    st.tuples(st.just("release"), st.just(1.0), st.just(100), shares, st.booleans()),
    st.tuples(st.just("share"), shares),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("split"), st.sampled_from([0, 10, 500, 1000]), st.booleans()),
    st.tuples(st.just("neighbour"), st.sampled_from([0.0, 1.0, 4.0])),
    st.tuples(st.just("ask"), st.integers(0, 6), st.sampled_from(["soft", "dw", "isolate", "let back"])),
    st.tuples(st.just("decide"), st.integers(0, 6)),
)  # fmt: skip
"""What happens to a service in the middle of a rollout."""


def act(world: World, move: tuple[object, ...]) -> None:
    """One thing that somebody else does."""
    match move:
        case ("agent", int(number), str(state)):
            world.agent_moves(number, state)
        case ("all ready",):
            for _ in world.live():
                world.agent_moves(0, "ready")
        case ("all work",):
            world.everyone_works()
        case ("agent stops",):
            world.agent_stops()
        case ("agent restarts",):
            world.agent_restarts()
        case ("route",):
            world.router_applies()
        case ("neighbour", float(cpu)):
            world.neighbour_takes(cpu)
        case ("time", float(seconds)):
            world.pass_time(seconds)
        case ("ask", int(number), str(what)):
            world.user_asks(number, what)
        case ("instance", int(count)):
            world.control(instance=count, instance_generation=world.service.generation + 1)
        case ("decide", int(count)):
            number = world.scale.number + 1 if world.scale else 1
            world.scale = scale(count, world.service.generation, number)
        case ("wanted", ("running" | "stopped" | "deleted") as wanted):
            world.service = replace(world.service, wanted=wanted)
        case ("node", int(index), str(state)) if index < len(world.nodes):
            world.nodes = tuple(replace(n, state=state) if i == index else n for i, n in enumerate(world.nodes))
        case _:
            roll(world, move)


def roll(world: World, move: tuple[object, ...]) -> None:
    """What control does with revisions."""
    match move:
        case ("release", float(cpu), int(memory_mib), int(share), bool(interrupt)):
            world.release(cpu, memory_mib, share, interrupt=interrupt)
        case ("share", int(share)):
            world.rollout(share_percent=share)
        case ("pause", bool(paused)):
            world.rollout(state="paused" if paused else "rolling")
        case ("split", int(weight), bool(keep)):
            world.split(weight, keep_stable=keep)
        case ("revert",):
            world.revert()
        case ("finish",):
            world.finish()
        case ("restart",):
            rev = world.service.revision
            world.control(revision=replace(rev, restart_nonce=rev.restart_nonce + 1))


def live_through(world: World, life: list[tuple[object, ...]]) -> None:
    for move in life:
        world.pass_time(0.001)
        act(world, move)
        world.plan_once()


def roomy(instance: int, policy: RolloutPolicy | None = None) -> World:
    return World((node("n0", cpu=1000.0, memory_mib=1_000_000),), instance, policy)


@settings(max_examples=500, deadline=None)
@given(nodes, st.integers(0, 6), policies, st.lists(moves, max_size=40))
def test_no_plan_breaks_a_promise(nodes, instance, policy, life):  # type: ignore[no-untyped-def]
    """Whatever happens, in whatever order: counts, capacity, health and the table of states are kept."""
    live_through(World(nodes, instance, policy), life)


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 6), policies, st.integers(0, 8), st.lists(rollout_moves, min_size=1, max_size=15))
def test_no_rollout_breaks_a_promise(instance, policy, room, life):  # type: ignore[no-untyped-def]
    """The same from the middle of a rollout, where there is little room or much."""
    world = World((node("n0", cpu=float(instance + room)),), instance, policy)
    assert world.settle()
    world.release(1.0, share_percent=50)
    world.plan_once()
    live_through(world, life)

    assert not plan(world.snapshot()).changes


@settings(max_examples=400, deadline=None)
@given(nodes, st.integers(0, 6), policies, st.lists(moves, max_size=25))
def test_applied_twice_equals_once(nodes, instance, policy, life):  # type: ignore[no-untyped-def]
    """After a plan is carried out, the next one in the same moment changes nothing."""
    world = World(nodes, instance, policy)
    live_through(world, life)
    world.plan_once()

    assert not plan(world.snapshot()).changes
    assert plan(world.snapshot()) == plan(world.snapshot())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 6), policies, st.lists(moves, max_size=25), st.integers(0, 6))
def test_converges_to_what_is_wanted(instance, policy, life, finally_wanted):  # type: ignore[no-untyped-def]
    """When everybody does his work and there is room, the wanted number serves, each revision with its share."""
    world = roomy(instance, policy)
    live_through(world, life)
    world.nodes = tuple(replace(n, state="ready") for n in world.nodes)
    world.service = replace(world.service, wanted="running")
    world.scale = scale(finally_wanted, world.service.generation, 10_000)
    world.rollout(state="rolling")

    assert world.settle()
    rollout, target = world.service.rollout, world.service.revision
    stable, of_target, kept = target, finally_wanted, 0
    if rollout is not None and rollout.stable != target:
        stable, of_target = rollout.stable, -(-rollout.share_percent * finally_wanted // 100)
        kept = limits(world.service, finally_wanted, world.route).kept
    assert len(world.available()) == len(world.active())
    assert sum(r.spec == target for r in world.active()) == of_target
    assert len(world.active()) == max(finally_wanted, of_target + kept)
    assert all(r.spec in (target, stable) for r in world.active())


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), policies, st.lists(shares, max_size=4), st.booleans(), st.data())
def test_a_rollout_keeps_its_bounds_at_every_moment(instance, policy, steps, reverts, data):  # type: ignore[no-untyped-def]
    """Nothing fails: at no moment are more than wanted + surge active or fewer than wanted − unavailable available,
    whichever agent and router comes first, also when it is taken back half way."""
    world = roomy(instance, policy)
    assert world.settle()
    world.release(1.0, share_percent=0)
    for share in [*sorted(steps), 100]:
        world.rollout(share_percent=share)
        for _ in range(data.draw(st.integers(0, 12))):
            act(world, data.draw(st.sampled_from([("agent", 0, "ready"), ("agent stops",), ("route",)])))
            world.plan_once()
            within_bounds(world, instance, policy)
    world.revert() if reverts else world.finish()
    for _ in range(6 * instance):
        world.plan_once()
        within_bounds(world, instance, policy)
        world.everyone_works()

    assert {r.spec.number for r in world.available()} == {1 if reverts else 2}
    assert len(world.available()) == instance


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), policies, st.lists(st.sampled_from([10, 100, 500, 999]), max_size=3), st.booleans(),
       st.booleans(), st.data())  # fmt: skip
def test_a_canary_takes_nothing_from_either_side(instance, policy, steps, keep, goes_back, data):  # type: ignore[no-untyped-def]
    """Nothing fails: replicas of a step's share come up beside those that the stable revision's share of the requests
    needs, whichever agent and router comes first; with `keep_stable` beside all of them."""
    world = roomy(instance, policy)
    assert world.settle()
    world.release(1.0, share_percent=1)
    world.split(0, keep_stable=keep)
    for weight in [*sorted(steps), 1000]:
        world.rollout(share_percent=max(-(-weight // 10), 1))
        some_time(world, instance, policy, data)
        for _ in range(8 * instance):
            world.plan_once()
            whole_sides(world, instance, policy)
            world.everyone_works()
        of_target = [r for r in world.available() if r.spec == world.service.revision]
        assert len(of_target) >= -(-weight * instance // 1000)
        world.split(weight, keep_stable=keep)
        some_time(world, instance, policy, data)
    if goes_back:
        world.split(0, keep_stable=keep)
    for _ in range(8 * instance):
        world.plan_once()
        world.everyone_works()
    kept = limits(world.service, instance, world.route).kept
    assert kept >= (instance if keep else instance - policy.unavailable(instance) if goes_back else 0)
    assert len(world.available()) == instance + kept


def some_time(world: World, instance: int, policy: RolloutPolicy, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(0, 8))):
        act(world, data.draw(st.sampled_from([("agent", 0, "ready"), ("agent stops",), ("route",)])))
        world.plan_once()
        whole_sides(world, instance, policy)


def whole_sides(world: World, wanted: int, policy: RolloutPolicy) -> None:
    """What serves the stable revision's requests, and how many there are at all."""
    rollout = world.service.rollout
    assert rollout is not None
    assert rollout.split is not None
    live = (world.route.split_permille or 0) if world.route is not None else 0
    m = limits(world.service, wanted, world.route)
    theirs = -(-(1000 - min(live, rollout.split.weight_permille)) * wanted // 1000)
    assert m.kept >= (wanted if rollout.keep_stable else theirs - policy.unavailable(wanted))
    assert sum(r.spec == rollout.stable for r in world.available()) >= m.kept
    assert len(world.active()) <= wanted + max(policy.surge(wanted), m.target + m.kept - wanted)


def within_bounds(world: World, wanted: int, policy: RolloutPolicy) -> None:
    assert len(world.active()) <= wanted + policy.surge(wanted)
    assert len(world.available()) >= wanted - policy.unavailable(wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), policies, shares.filter(bool))
def test_a_revision_that_never_serves_spends_nothing(instance, policy, share):  # type: ignore[no-untyped-def]
    """However long a broken release is tried, what served before it still serves: all of it where a surge is allowed,
    else all but those that may be missing."""
    world = roomy(instance, policy)
    assert world.settle()
    served = {r.id for r in world.live()}
    world.release(1.0, share_percent=share)

    for _ in range(30):
        world.plan_once()
        for r in world.live():
            if r.id not in served and r.state == "placed" and r.spec.number == 2:
                world.move(r.id, "failed")
            elif r.state == "draining":
                world.move(r.id, "stopped")
        world.router_applies()
        world.pass_time(7.0)

    left = {r.id for r in world.live() if r.state == "ready"}
    missing = 0 if policy.surge(instance) else policy.unavailable(instance)
    assert left <= served
    assert len(left) >= instance - missing


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.booleans())
def test_without_room_an_interruption_has_to_be_asked_for(instance, interrupt):  # type: ignore[no-untyped-def]
    """The node is full: nothing moves; asked for, one at a time makes room for its successor."""
    world = World((node("n0", cpu=float(instance)),), instance)
    assert world.settle()
    before = {r.id for r in world.live()}
    world.release(1.0, interrupt=interrupt)
    for _ in range(5 * instance):
        world.plan_once()
        assert len(world.available()) >= instance - int(interrupt)
        world.everyone_works()

    assert {r.spec.number for r in world.available()} == ({2} if interrupt else {1})
    assert len(world.available()) == instance
    assert interrupt or before <= {r.id for r in world.available()}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=20))
def test_soft_restarts_take_turns(instance, first, more, routed):  # type: ignore[no-untyped-def]
    """At most one is out of traffic, however late the router is; every one gets its turn, and none is made or ended."""
    world = roomy(instance)
    assert world.settle()
    before = {r.id for r in world.live()}
    for number in range(more):
        world.user_asks(first + number, "soft")
    for router_works in [*routed, *[True] * 3 * instance]:
        world.plan_once()
        assert len(world.available()) >= instance - 1
        world.router_applies() if router_works else None
        world.agent_restarts()

    world.router_applies()
    assert {r.id for r in world.available()} == before
    assert sum(r.restart_done for r in world.live()) == min(more, instance)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), policies, st.lists(st.integers(0, 4), min_size=1, max_size=3), st.booleans())
def test_what_is_to_be_replaced_serves_until_its_successor_does(instance, policy, which, isolated):  # type: ignore[no-untyped-def]
    """`dw` and isolation: never fewer available than wanted after the first moment of an isolation."""
    world = roomy(instance, policy)
    assert world.settle()
    before = {r.id for r in world.live()}
    for number in which:
        world.user_asks(number, "isolate" if isolated else "dw")
    asked = {r.id for r in world.live() if r.replacing or r.out_of_traffic}
    for _ in range(4 * instance + 4):
        world.plan_once()
        assert isolated or len(world.available()) >= instance
        world.everyone_works()

    assert len(world.available()) == instance
    assert not asked & {r.id for r in world.available()}
    assert before - asked <= {r.id for r in world.available()}
    assert {r.id for r in world.live() if r.out_of_traffic} == (asked if isolated else set())
