"""Which replicas go first, and when the router has to be asked."""

from __future__ import annotations

from easel_scheduler.decide.plan import plan
from easel_scheduler.decide.world import Plan
from tests.unit.scheduler.build import at, replica, route, service, snapshot

THREE = [replica(name, created_at=at(i)) for i, name in enumerate("abc")]


def scaled_in(wanted: int, in_flight: dict[str, int] | None) -> Plan:
    return plan(snapshot(*THREE, service=service(wanted), route=route(*"abc"), in_flight=in_flight))


def test_the_fewest_requests_in_flight_go() -> None:
    """With the number in the sentence; of several the same way."""
    one = scaled_in(2, {"a": 2, "b": 5, "c": 7})
    assert [d.replica for d in one.drain] == ["a"]
    assert "of 3 ready replicas this one had the fewest requests in flight: 2" in one.drain[0].why.message
    two = scaled_in(1, {"a": 2, "b": 5, "c": 7})
    assert {d.replica for d in two.drain} == {"a", "b"}
    assert "these 2 had the fewest requests in flight, this one 5" in two.drain[1].why.message


def test_unknown_is_not_zero() -> None:
    """One that nobody counts: the newest goes, and the sentence says why."""
    found = scaled_in(2, {"a": 2, "b": 5})
    assert [d.replica for d in found.drain] == ["c"]
    assert "how many requests each had in flight is not known" in found.drain[0].why.message


def test_the_router_is_asked_only_where_its_answer_decides() -> None:
    """Not without a victim, not when all go, not for one that answers nobody; and never twice."""
    assert scaled_in(2, None).asks_in_flight
    assert not scaled_in(2, {}).asks_in_flight
    assert not scaled_in(3, None).asks_in_flight
    assert not scaled_in(0, None).asks_in_flight
    broken = [*THREE[:2], replica("c", "unready")]
    assert not plan(snapshot(*broken, service=service(2), route=route(*"ab"))).asks_in_flight
