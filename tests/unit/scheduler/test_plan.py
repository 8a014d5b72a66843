"""When failed replicas are replaced, what a plan changes, and what people see of it."""

from __future__ import annotations

from typing import Any

from easel_scheduler.decide.backoff import Hold, hold
from easel_scheduler.decide.explain import explain
from easel_scheduler.decide.plan import plan
from easel_scheduler.decide.shown import shown
from tests.unit.scheduler.build import T0, at, node, replica, revision, rolling, route, scale, service, snapshot

# When failed ones are replaced.


def failed(name: str, created: float, ended: float, **more: Any) -> Any:
    return replica(name, "failed", created_at=at(created), state_at=at(ended), ended_at=at(ended), **more)


def held(*given: Any) -> Hold:
    found = hold(*given)
    assert found is not None
    return found


def test_back_off_doubles_and_ends() -> None:
    """1 s, 2 s, 4 s … after the newest failure, at most 300 s."""
    identity = replica().identity
    first, second = failed("a", 0, 1), failed("b", 2, 3)

    assert held((first,), identity, 1, at(1.5)).until == at(2)
    assert hold((first,), identity, 1, at(2)) is None
    assert held((first, second), identity, 1, at(3.5)).until == at(5)
    many = tuple(failed(str(i), i, i + 0.5) for i in range(20))
    assert held(many, identity, 1, at(20)).until == at(319.5)


def test_back_off_counts_rounds_and_forgives() -> None:
    """Three of three failing are one round; another revision, or one that served a minute, ends the streak."""
    identity = replica().identity
    three = tuple(failed(name, 0, 1) for name in "abc")
    served = failed("d", -100, 1, ready_at=at(-90))

    assert held(three, identity, 3, at(1.5)).until == at(2)
    assert held(three, identity, 3, at(1.5)).slots == 3
    assert hold(three, replica(rev=revision(2)).identity, 3, at(1.5)) is None
    assert hold((served,), identity, 1, at(1.1)) is None


def test_a_replica_made_for_another_reason_ends_no_back_off() -> None:
    """In the moment of the failure another one was lost, and only that one is replaced."""
    broken = failed("a", 0, 1)
    assert held((broken, replica("c", "placed", created_at=at(1))), broken.identity, 2, at(1.1)).slots == 1
    assert hold((broken, replica("c", "placed", created_at=at(2))), broken.identity, 2, at(2.1)) is None


def test_a_lost_replica_is_replaced_at_once() -> None:
    """Back-off is for failures."""
    lost = replica("a", "lost", ended_at=T0)

    assert [new.node for new in plan(snapshot(lost)).create] == ["n1"]


# What the plan does.


def test_a_release_comes_up_beside_the_old() -> None:
    """One for one: the old drain as far as the new serve."""
    old = [replica(name) for name in "ab"]
    new = replica("c", rev=revision(2))
    state = service(2, revision(2))

    beginning = plan(snapshot(*old, service=state))
    assert (len(beginning.create), beginning.drain) == (1, ())
    ready = plan(snapshot(*old, new, service=state, route=route("a", "b")))
    assert (ready.create, ready.drain) == ((), ())
    routed = plan(snapshot(*old, new, service=state, route=route("a", "b", "c")))
    assert len(routed.drain) == 1
    assert len(routed.create) == 1


def test_a_release_without_room_spends_nothing_healthy() -> None:
    """The new one waits with its reason; the old ones serve."""
    old = replica("a", rev=revision(cpu=6))
    found = plan(snapshot(old, service=service(1, revision(2, cpu=6)), nodes=(node(cpu_reserved=6.0),)))

    assert found.create[0].why.code == "NoCapacity"
    assert found.drain == ()


def test_a_broken_old_one_makes_room_for_its_successor() -> None:
    """Not ready for half a minute, and the new one finds no room."""
    old = replica("a", "unready", rev=revision(cpu=6))
    state = rolling(1, new=revision(2, cpu=6), old=old.spec)
    nodes = (node(cpu_reserved=6.0),)

    assert plan(snapshot(old, service=state, nodes=nodes, now=10)).drain == ()
    assert plan(snapshot(old, service=state, nodes=nodes, now=10)).wake_after_s == 20
    assert [d.why.code for d in plan(snapshot(old, service=state, nodes=nodes, now=30)).drain] == ["MakesRoom"]


def test_an_old_one_that_never_served_goes_at_once() -> None:
    """It would only hold the room."""
    starting = replica("a", "starting", ready_at=None)
    pending = replica("b", "pending")
    found = plan(snapshot(starting, pending, service=service(2, revision(2))))

    assert [d.replica for d in found.drain] == ["a"]
    assert [s.replica for s in found.stop] == ["b"]


def test_scale_in_takes_the_useless_first() -> None:
    """Not ready, then without traffic, then the newest."""
    rows = [replica("a", created_at=at(1)), replica("b", created_at=at(2)), replica("c", created_at=at(3)),
            replica("d", "starting", created_at=at(0))]  # fmt: skip

    def victims(count: int) -> set[str]:
        return {d.replica for d in plan(snapshot(*rows, service=service(count), route=route("a", "c"))).drain}

    assert victims(3) == {"d"}
    assert victims(2) == {"d", "b"}
    assert victims(1) == {"d", "b", "c"}


def test_a_service_that_was_never_told_is_kept() -> None:
    """Missing data is not an empty world."""
    found = plan(snapshot(replica(), service=None))

    assert not found.changes
    assert found.wait[0].why.code == "AwaitsService"


def test_zero_drains_all_and_says_so_and_one_is_made_at_once() -> None:
    """Wanted 0 by a decision: each finishes its requests; what is isolated stays. 0 → n waits for nothing."""
    isolated = replica("b", out_of_traffic="isolated", out_at=T0)
    down = plan(snapshot(replica("a"), isolated, scale=scale(0), route=route("a")))

    assert [(d.replica, d.why.code) for d in down.drain] == [("a", "ScaleToZero")]
    assert "decision 1: as asked" in down.drain[0].why.message
    assert len(plan(snapshot(replica("a", "draining"), scale=scale(3))).create) == 3
    stopped = plan(snapshot(replica("a"), isolated, service=service(1, wanted="stopped")))
    assert {(d.replica, d.why.code) for d in stopped.drain} == {("a", "ServiceStopped"), ("b", "ServiceStopped")}


def test_a_restart_replaces_every_replica() -> None:
    """The same revision with a new nonce is another identity."""
    found = plan(snapshot(replica(), service=service(1, revision(1, restart_nonce=1))))

    assert len(found.create) == 1
    assert found.drain == ()


# What people see.


def test_explain_says_how_many_where_and_what_is_awaited() -> None:
    """The count's reason, each replica's place, the failure before, the wait."""
    ready = replica("a", placement="n1 is the only node with room")
    gone = failed("b", 2, 3, cause="OutOfMemory", message="used 600 of 512 MiB")
    codes = [line.code for line in explain(snapshot(ready, gone, service=service(2), now=3.5))]

    assert codes == ["SpecInstance", "Ready", "Placed", "OutOfMemory", "BackOff"]


def test_shown_first() -> None:
    """Live ones; where none is, the failure that explains it."""
    live, stopped, broken = replica("a"), replica("b", "stopped", ended_at=at(1)), failed("c", 0, 2)

    assert [r.id for r in shown((live, stopped, broken), everything=False)] == ["a"]
    assert [r.id for r in shown((stopped, broken), everything=False)] == ["c"]
    assert [r.id for r in shown((live, stopped, broken), everything=True)] == ["a", "c", "b"]
    assert shown((stopped,), everything=False) == []
