"""What a plan does while one revision takes the place of another, and when somebody asks for replacements."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from easel_contracts.facts import RouteState, ServiceState
from easel_contracts.spec import Split
from easel_scheduler.decide.explain import explain
from easel_scheduler.decide.plan import plan
from easel_scheduler.decide.world import Plan, Replica
from tests.unit.scheduler.build import at, node, replica, revision, rolling, route, service, snapshot

NEW = revision(2)


def old(*names: str, **more: Any) -> list[Replica]:
    return [replica(name, **more) for name in names]


def new(*names: str, state: str = "ready", **more: Any) -> list[Replica]:
    return [replica(name, state, NEW, **more) for name in names]


def made(found: Plan) -> list[int]:
    return [x.spec.number for x in found.create]


def gone(found: Plan) -> list[str]:
    return sorted([x.replica for x in found.drain] + [x.replica for x in found.stop])


def split(state: ServiceState, weight: int, *, keep: bool = False) -> ServiceState:
    assert state.rollout is not None
    shared = replace(state.rollout, split=Split(weight_permille=weight), keep_stable=keep)
    return replace(state, rollout=shared)


def routed(*replicas: str, live: int) -> RouteState:
    return replace(route(*replicas), split_permille=live)


# Shares, surge, unavailable.


def test_only_the_share_is_made_and_only_what_it_replaces_drains() -> None:
    """A fifth of five is one: made beside the five, then one of the old drains, and no more."""
    state = rolling(5, share=20)
    assert made(plan(snapshot(*old(*"abcde"), service=state, route=route(*"abcde")))) == [2]
    served = plan(snapshot(*old(*"abcde"), *new("n"), service=state, route=route(*"abcden")))
    assert (len(served.drain), served.create) == (1, ())
    rest = plan(snapshot(*old(*"abcd"), *new("n"), service=state, route=route(*"abcdn")))
    assert not rest.changes


def test_surge_and_unavailable_bound_each_step() -> None:
    """Two beside four; once one of the new serves, one may be missing too."""
    state = rolling(4, surge=2, unavailable=1)
    assert made(plan(snapshot(*old(*"abcd"), service=state, route=route(*"abcd")))) == [2, 2]
    starting = plan(snapshot(*old(*"abcd"), *new("m", "n", state="starting"), service=state, route=route(*"abcd")))
    assert not starting.changes
    one = plan(snapshot(*old(*"abcd"), *new("m"), *new("n", state="starting"), service=state, route=route(*"abcdm")))
    assert len(one.drain) == 2
    assert made(one) == [2, 2]


def test_without_surge_one_is_missing_at_a_time() -> None:
    """Drained and made in one step; the next when the new one serves."""
    state = rolling(3, surge=0, unavailable=1)
    first = plan(snapshot(*old(*"abc"), service=state, route=route(*"abc")))
    assert "none may be above the 3 wanted and 1 may be missing" in first.drain[0].why.message
    assert made(first) == [2]
    assert not plan(snapshot(*old(*"ab"), *new("n", state="starting"), service=state, route=route(*"ab"))).changes


def test_a_split_keeps_what_its_weight_needs() -> None:
    """One at most makes room of four while a tenth goes to the candidate; two when half is live there, not before."""
    names = "abcd"
    before = split(rolling(4, share=25), 0)
    assert made(plan(snapshot(*old(*names), service=before, route=route(*names)))) == [2]
    rows = [*old(*names), *new("m")]
    live = routed(*names, "m", live=100)
    assert not plan(snapshot(*rows, service=split(rolling(4, share=25), 100), route=live)).changes
    half = split(rolling(4, share=50), 500)
    both = [*old(*names), *new("m", "n")]
    assert not plan(snapshot(*both, service=half, route=routed(*names, "m", "n", live=100))).changes
    assert len(plan(snapshot(*both, service=half, route=routed(*names, "m", "n", live=500))).drain) == 2
    back = split(rolling(4, share=50), 0)
    left = [*old("a", "b"), *new("m", "n")]
    assert made(plan(snapshot(*left, service=back, route=routed("a", "b", live=500)))) == [1, 1]


def test_keep_stable_keeps_all_of_it_beside_the_new() -> None:
    """Blue-green: the new ones come up whole beside the old, which stay whatever goes to them; then they go."""
    state = split(rolling(3), 0, keep=True)
    assert made(plan(snapshot(*old(*"abc"), service=state, route=route(*"abc")))) == [2, 2, 2]
    rows = [*old(*"abc"), *new(*"xyz")]
    over = split(rolling(3), 1000, keep=True)
    assert not plan(snapshot(*rows, service=over, route=routed(*"abcxyz", live=1000))).changes
    words = explain(snapshot(*rows, service=over, route=routed(*"abcxyz", live=1000)))[1].message
    assert "3 of that are kept for the requests that go to it" in words
    assert len(plan(snapshot(*rows, service=rolling(3), route=route(*"abcxyz"))).drain) == 3


def test_the_last_stable_replica_makes_no_room_while_requests_go_to_it() -> None:
    """Asked for, one of several does; a canary beside a single replica that leaves no room waits."""
    full = (node(cpu=1.0, cpu_reserved=1.0),)
    one = split(rolling(1, share=1, interrupt=True), 0)
    waiting = replica("n", "pending", NEW)
    assert not plan(snapshot(*old("a"), waiting, service=one, route=route("a"), nodes=full)).drain
    two = split(rolling(2, share=1, interrupt=True), 0)
    full = (node(cpu=2.0, cpu_reserved=2.0),)
    found = plan(snapshot(*old("a", "b"), waiting, service=two, route=route("a", "b"), nodes=full, in_flight={}))
    assert [d.why.code for d in found.drain] == ["MakesRoom"]


def test_a_stable_replica_that_dies_is_made_anew_and_placed_first() -> None:
    """While the new one is not proved, the old ones stay whole: room goes to them first."""
    waiting = replica("n", "pending", NEW, created_at=at(-5))
    found = plan(
        snapshot(*old("a", "b"), waiting, service=rolling(3, surge=1), nodes=(node(cpu=3.0, cpu_reserved=2.0),))
    )
    assert made(found) == [1]
    assert [x.node for x in found.create] == ["n1"]
    assert found.place == ()


def test_a_paused_rollout_keeps_what_serves() -> None:
    """None of the new is made, none of the old drained, and what is missing is made of the old."""
    state = rolling(3, paused=True)
    extra = plan(snapshot(*old(*"abc"), *new("n"), service=state, route=route(*"abcn")))
    assert not extra.changes
    assert made(plan(snapshot(*old("a", "b"), service=state, route=route("a", "b")))) == [1]
    assert [x.code for x in explain(snapshot(*old("a"), service=state))][1] == "RolloutPaused"


def test_taken_back_in_mid_rollout() -> None:
    """What does not serve of the new goes at once, what serves when an old one is there in its stead."""
    rows = [*old("a", "b"), *new("n"), *new("m", state="starting", ready_at=None)]
    first = plan(snapshot(*rows, service=service(3), route=route("a", "b", "n")))
    assert gone(first) == ["m"]
    assert made(first) == [1]
    back = plan(snapshot(*old("a", "b", "c"), *new("n"), service=service(3), route=route("a", "b", "c", "n")))
    assert [(d.replica, d.why.code) for d in back.drain] == [("n", "Replaced")]


def test_superseded_by_a_third() -> None:
    """What was begun is never made again; what of it serves goes before the stable one."""
    state = rolling(3, new=revision(3))
    rows = [*old("a", "b"), *new("n"), replica("z", rev=revision(3))]
    found = plan(snapshot(*rows, service=state, route=route("a", "b", "n", "z")))
    assert gone(found) == ["n"]
    assert made(found) == [3]


# No room.


def full(interrupt: bool, cpu: float = 1.0, **more: Any) -> Plan:
    waiting = replica("n", "pending", revision(2, cpu=cpu))
    state = rolling(2, new=waiting.spec, interrupt=interrupt, **more)
    nodes = (node(cpu=2.0, cpu_reserved=2.0),)
    return plan(snapshot(*old("a", "b"), waiting, service=state, nodes=nodes, route=route("a", "b")))


def test_one_makes_room_only_where_that_was_allowed() -> None:
    """Asked for, or allowed to be missing; and only when its end really makes room."""
    assert full(False).drain == ()
    assert [d.why.code for d in full(True).drain] == ["MakesRoom"]
    assert [d.why.code for d in full(False, unavailable=1).drain] == ["MakesRoom"]
    too_large = full(True, cpu=2.0)
    assert too_large.drain == ()
    assert "NoRoomBeside" in [w.why.code for w in too_large.wait]


def test_it_is_not_made_again_while_its_successor_comes_up() -> None:
    """The room it gave is not its own any more; when the successor fails it is, and first."""
    left = replica("b", "draining", cause="MakesRoom", draining_at=at(1))
    waiting = replica("n", "pending", NEW)
    state = rolling(2, interrupt=True)
    nodes = (node(cpu=2.0, cpu_reserved=2.0),)
    assert not plan(snapshot(*old("a"), left, waiting, service=state, nodes=nodes, route=route("a"), now=2)).changes
    failed = replica("n", "failed", NEW, ended_at=at(3), state_at=at(3))
    assert made(plan(snapshot(*old("a"), left, failed, service=state, route=route("a"), now=3.1))) == [1, 2]


# Isolated, replaced, restarted.


def test_an_isolated_replica_counts_as_nothing() -> None:
    """A successor is made; let back, one is too many, and it is the one without traffic."""
    out = replica("a", out_of_traffic="isolated", out_at=at(0))
    assert made(plan(snapshot(out, *old("b"), service=service(2), route=route("b")))) == [1]
    rows = [out, *old("b", "c"), *new("n")]
    assert "a" not in gone(plan(snapshot(*rows, service=rolling(2), route=route("b", "c", "n"))))
    back = plan(snapshot(*old("a", "b", "c"), service=service(2), route=route("b", "c")))
    assert gone(back) == ["a"]


def test_a_replica_is_replaced_when_its_successor_serves() -> None:
    """One beside the wanted number even where the policy allows none; at once only when it serves nobody or is told."""
    marked = replica("a", replacing="surge")
    state = rolling(2, surge=0, unavailable=1, share=0)
    first = plan(snapshot(marked, *old("b"), service=state, route=route("a", "b")))
    assert (made(first), first.drain) == ([1], ())
    assert "AwaitsSuccessor" in [w.why.code for w in first.wait]
    done = plan(snapshot(marked, *old("b", "c"), service=state, route=route("a", "b", "c")))
    assert [(d.replica, d.why.code) for d in done.drain] == [("a", "Replaced")]
    for hurried in (replica("a", replacing="now"), replica("a", "unready", replacing="surge")):
        found = plan(snapshot(hurried, *old("b"), service=service(2), route=route("a", "b")))
        assert [(d.replica, d.why.code) for d in found.drain] == [("a", "RestartAsked")]
        assert made(found) == [1]


def test_a_replacement_without_room_waits_and_says_so() -> None:
    """What the successor is short of."""
    marked = replica("a", replacing="surge")
    waiting = replica("b", "pending", message="n1: short by 1 cores")
    found = plan(snapshot(marked, waiting, nodes=(node(cpu=1.0, cpu_reserved=1.0),), route=route("a")))
    assert found.drain == ()
    words = next(w.why.message for w in found.wait if w.why.code == "AwaitsSuccessor")
    assert "short by 1 cores" in words


def test_soft_restarts_one_at_a_time() -> None:
    """What does not serve first; the next when the one before is back in the route."""
    asked = [replica(x, restart_asked=1) for x in "ab"] + [replica("c", "unready", restart_asked=1)]
    first = plan(snapshot(*asked, service=service(3), route=route("a", "b")))
    assert [x.replica for x in first.take_out] == ["c"]
    assert "2 replicas wait" in next(w.why.message for w in first.wait if w.why.code == "SoftRestart")
    out = replica("c", restart_asked=1, out_of_traffic="restarting", out_at=at(0))
    assert plan(snapshot(*asked[:2], out, service=service(3), route=route("a", "b"))).take_out == ()
    back = replica("c", restart_asked=1, restart_done=1)
    assert plan(snapshot(*asked[:2], back, service=service(3), route=route("a", "b"))).take_out == ()
    routed = plan(snapshot(*asked[:2], back, service=service(3), route=route("a", "b", "c")))
    assert [x.replica for x in routed.take_out] == ["a"]


# For people.


def test_explain_counts_a_rollout() -> None:
    """Which revision has how many, and what may be."""
    line = explain(snapshot(*old("a", "b"), *new("n"), service=rolling(3, share=50), route=route("a", "n")))[1]
    assert line.code == "Rollout"
    assert (
        "2 of the 3 wanted may be of it now; 1 are, 1 of them in traffic; 2 are of the one before, 1 of" in line.message
    )
    assert "At most 4 at a time, and 0 may be missing" in line.message


def test_explain_names_what_was_asked_and_what_is_wrong() -> None:
    """Isolated, waiting for a new process, a server that hangs up on the gateway."""
    rows = [
        replica("a", out_of_traffic="isolated", out_at=at(0)),
        replica("b", restart_asked=1),
        replica("c", keep_alive_s=0.5),
    ]
    found = {line.code: line for line in explain(snapshot(*rows, service=service(2), route=route("b", "c")))}
    assert {"Isolated", "AwaitsRestart", "KeepAliveTooShort"} <= set(found)
    assert "after 0.5 s" in found["KeepAliveTooShort"].message
    assert "--timeout-keep-alive" in found["KeepAliveTooShort"].hint
