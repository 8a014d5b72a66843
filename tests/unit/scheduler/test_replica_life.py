"""What one replica needs, what reports and silence mean."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from easel_contracts.facts import Endpoint
from easel_contracts.runtime import FailureCause, ReplicaReport
from easel_contracts.spec import Lifecycle
from easel_contracts.states import IllegalTransition
from easel_scheduler.decide.beat import verdict
from easel_scheduler.decide.fold import CAUSES, fold
from easel_scheduler.decide.life import Again, Around, End, Halt, Rest, Start, next_step
from tests.unit.scheduler.build import T0, at, replica, revision, route

# What one replica needs.


def around(**more: Any) -> Around:
    given = {"now": at(1), "node_state": "ready", "run": "run-1", "known": True, "drained": False, "route": None,
             "sent_s": None, **more}  # fmt: skip
    return Around(**given)


def test_a_placed_replica_is_started_until_its_agent_reports() -> None:
    """Once, then again after a while."""
    placed = replica("a", "placed", placed_at=T0)

    assert isinstance(next_step(placed, around(known=False)), Start)
    assert next_step(placed, around(known=False, sent_s=1.0)) == Rest(4.0, next_step(placed, around(sent_s=1.0)).why)  # type: ignore[union-attr]
    assert isinstance(next_step(placed, around(known=False, sent_s=5.0)), Start)
    assert isinstance(next_step(placed, around(run=None)), Rest)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"node_state": "lost", "run": None}, "NodeLost"),
        ({"run": "run-2"}, "AgentRestarted"),
        ({"known": False}, "UnknownToAgent"),
    ],
)
def test_a_replica_is_lost_only_by_evidence(given: dict[str, Any], code: str) -> None:
    """A lost node, a new life of the agent, an agent that has told all and did not name it."""
    found = next_step(replica(), around(**given))

    assert isinstance(found, End)
    assert (found.state, found.why.code) == ("lost", code)


@pytest.mark.parametrize("given", [{"run": None}, {"run": None, "node_state": "not_ready"}, {}])
def test_silence_keeps_a_replica(given: dict[str, Any]) -> None:
    """An agent that is not connected says nothing about its replicas."""
    assert isinstance(next_step(replica(), around(**given)), Rest)


def draining(sigterm: bool = False, **more: Any) -> Any:
    life = Lifecycle(termination_grace_s=30, enable_sigterm=sigterm)
    return replica("a", "draining", revision(lifecycle=life), draining_at=T0, **more)


def test_a_drain_ends_when_nothing_is_in_flight_or_grace_is_over() -> None:
    """Told drained: at once. Else at the end of the grace period."""
    assert next_step(draining(), around(now=at(10))) == Rest(20.0, next_step(draining(), around(now=at(10))).why)  # type: ignore[union-attr]
    done = next_step(draining(), around(drained=True))
    assert isinstance(done, Halt)
    assert (done.idle, done.sigterm) == (True, False)
    over = next_step(draining(), around(now=at(31)))
    assert isinstance(over, Halt)
    assert (over.idle, over.grace_s, over.why.code) == (False, 0.0, "GraceOver")
    never = next_step(draining(ready_at=None), around())
    assert isinstance(never, Halt)
    assert never.idle


def test_sigterm_goes_out_when_traffic_is_off() -> None:
    """Not before: a request could still arrive."""
    assert isinstance(next_step(draining(True), around(route=route("a"))), Rest)
    off = next_step(draining(True), around(now=at(2), route=route(draining=("a",))))
    assert isinstance(off, Halt)
    assert (off.sigterm, off.idle, off.grace_s) == (True, False, 28.0)


# Its process is started anew in its place.


def restarting(sigterm: bool = False, **more: Any) -> Any:
    life = Lifecycle(termination_grace_s=30, enable_sigterm=sigterm)
    given = {"out_of_traffic": "restarting", "out_at": T0, "restart_asked": 2, "restart_done": 1, **more}
    return replica("a", given.pop("state", "ready"), revision(lifecycle=life), **given)


def test_a_process_is_started_anew_when_no_request_is_left_or_grace_is_over() -> None:
    """Like the end of a drain; sent again until the agent has done it."""
    assert isinstance(next_step(restarting(), around(now=at(10))), Rest)
    idle = next_step(restarting(), around(now=at(10), drained=True))
    assert isinstance(idle, Again)
    assert (idle.number, idle.grace_s, idle.sigterm, idle.why.code) == (2, 0.0, False, "Drained")
    over = next_step(restarting(), around(now=at(31)))
    assert isinstance(over, Again)
    assert (over.grace_s, over.why.code) == (0.0, "GraceOver")
    assert isinstance(next_step(restarting(), around(now=at(31), sent_s=1.0)), Rest)
    assert isinstance(next_step(restarting(ready_at=None), around()), Again)
    assert isinstance(next_step(restarting(out_of_traffic=""), around(drained=True)), Rest)
    assert isinstance(next_step(restarting(restart_done=2), around(drained=True)), Rest)


def test_a_program_that_wants_sigterm_gets_it_before_the_restart_too() -> None:
    """With what is left of the grace period, as soon as the route has taken the replica out."""
    off = next_step(restarting(True), around(now=at(2), route=route(draining=("a",))))

    assert isinstance(off, Again)
    assert (off.sigterm, off.grace_s, off.why.code) == (True, 28.0, "OutOfRoute")


def test_it_is_back_in_traffic_when_the_new_process_is_ready() -> None:
    """Not by a report of the old one, nor of one that is not ready; an isolated one stays out."""
    early = fold(restarting(), report("running", ready=True, restart_number=1, pid=7), at(1))
    assert early is not None
    assert early.out_of_traffic == "restarting"
    unready = fold(restarting(), report("running", restart_number=2), at(1))
    assert unready is not None
    assert (unready.restart_done, unready.out_of_traffic) == (2, "restarting")
    back = fold(unready, report("running", 2, ready=True, restart_number=2), at(2))
    assert back is not None
    assert (back.state, back.out_of_traffic, back.out_at) == ("ready", "", None)
    isolated = fold(restarting(out_of_traffic="isolated"), report("running", ready=True, restart_number=2), at(1))
    assert isolated is not None
    assert (isolated.out_of_traffic, isolated.restart_done) == ("isolated", 2)


# Reports.


def test_a_short_keep_alive_is_remembered_and_forgotten() -> None:
    """As the agent measured it last."""
    short = fold(replica(), report("running", ready=True, keep_alive_s=0.5), at(1))
    assert short is not None
    assert short.keep_alive_s == 0.5
    mended = fold(short, report("running", 2, ready=True), at(1))
    assert mended is not None
    assert mended.keep_alive_s is None


def report(phase: Any, sequence: int = 1, **more: Any) -> ReplicaReport:
    given = {"agent_run_id": "run-1", "ip": "127.0.0.1", "port": 20001, "network": "local", **more}
    return ReplicaReport(replica="a", service="ocr", revision=1, sequence=sequence, phase=phase, **given)


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        ("placed", report("fetching"), ("fetching", "")),
        ("placed", report("running", ready=True), ("ready", "")),
        ("fetching", report("starting"), ("starting", "")),
        ("starting", report("running", ready=False), ("starting", "")),
        ("ready", report("running", ready=False, cause="probe"), ("unready", "ProbeFailed")),
        ("ready", report("running", ready=False), ("unready", "ReadinessFailed")),
        ("ready", report("backoff", cause="crash_loop"), ("starting", "CrashLoop")),
        ("ready", report("fetching"), ("starting", "")),
        ("ready", report("stopping"), ("unready", "Stopping")),
        ("starting", report("failed", cause="requirements"), ("failed", "RequirementsFailed")),
        ("ready", report("stopped"), ("lost", "StoppedByAgent")),
        ("draining", report("stopped"), ("stopped", "")),
        ("draining", report("failed", cause="oom"), ("failed", "OutOfMemory")),
    ],
)
def test_a_report_moves_a_replica(before: str, given: ReplicaReport, after: tuple[str, str]) -> None:
    """The agent's phase → the replica's state and cause."""
    found = fold(replica("a", before), given, at(1))

    assert found is not None
    assert (found.state, found.cause) == after
    assert (found.ended_at is not None) == (not found.live)


def test_old_and_foreign_reports_change_nothing() -> None:
    """By sequence, by the agent's life, and after the end."""
    ready = replica("a", "ready", sequence=5)

    assert fold(ready, report("failed", 5), at(1)) is None
    assert fold(ready, report("failed", 9, agent_run_id="run-0"), at(1)) is None
    assert fold(replica("a", "stopped"), report("running", 9, ready=True), at(1)) is None
    assert fold(replica("a", "draining"), report("running", 9, ready=True, port=0), at(1)) is None


def test_a_draining_replica_stays_draining() -> None:
    """Whatever its program does."""
    for phase in ("starting", "running", "backoff", "stopping"):
        found = fold(replica("a", "draining"), report(phase, pid=7), at(1))
        assert found is None or found.state == "draining"


def test_every_cause_of_the_agent_has_a_word_for_users() -> None:
    """Nothing falls through."""
    assert set(CAUSES) == set(get_args(FailureCause))


# Adopted by the agent's next life.


def test_a_container_that_the_agents_next_life_adopts_goes_on() -> None:
    """Whatever the sequence: it counts anew. From there on the new life's reports count, and no other's."""
    ready = replica("a", "ready", sequence=50, pid=7, endpoints=(ENDPOINT,))
    found = fold(ready, adopted("running", 1, ready=True, pid=7), at(1))

    assert found is not None
    assert (found.run, found.sequence, found.state, found.state_at) == ("run-2", 1, "ready", T0)
    assert fold(found, adopted("running", 1, ready=True, pid=7), at(1)) is None
    assert fold(found, report("stopped", 99), at(1)) is None
    unready = fold(found, adopted("running", 2, cause="probe"), at(2))
    assert unready is not None
    assert (unready.state, unready.cause) == ("unready", "ProbeFailed")
    assert isinstance(next_step(found, around(run="run-2")), Rest)


def test_what_is_adopted_while_it_drains_drains_on() -> None:
    """And is stopped as any other."""
    found = fold(draining(), adopted("running", ready=True), at(1))

    assert found is not None
    assert (found.state, found.run, found.draining_at) == ("draining", "run-2", T0)
    assert isinstance(next_step(found, around(run="run-2", drained=True)), Halt)
    ended = fold(found, adopted("stopped", 2), at(2))
    assert ended is not None
    assert ended.state == "stopped"


def test_restarts_are_counted_over_lives_of_the_agent() -> None:
    """A life that counts from zero goes on from what was; one that knows the number keeps it."""
    before = replica("a", "ready", restarts=3)

    first = fold(before, adopted("running", 1, ready=True), at(1))
    assert first is not None
    second = fold(first, adopted("starting", 2, restarts=1), at(2))
    assert second is not None
    assert (first.restarts, second.restarts) == (3, 4)
    third = fold(second, adopted("running", 1, agent_run_id="run-3", restarts=1, ready=True), at(3))
    assert third is not None
    assert third.restarts == 5
    known = fold(before, adopted("running", 1, ready=True, restarts=3), at(1))
    assert known is not None
    assert known.restarts == 3


def test_a_restart_that_was_asked_for_is_asked_for_again() -> None:
    """The new life does not know of it: it stays out of traffic until that life has done it."""
    found = fold(restarting(), adopted("running", ready=True), at(1))

    assert found is not None
    assert (found.out_of_traffic, found.restart_done) == ("restarting", 1)
    assert isinstance(next_step(found, around(run="run-2", drained=True)), Again)


def test_an_endpoint_may_change() -> None:
    """Each run of a container may have an address of its own; where none is told, the last is kept."""
    before = replica("a", "ready", endpoints=(ENDPOINT,))
    moved = fold(before, report("starting", ip="172.20.0.9", port=8000, network="easel"), at(1))

    assert moved is not None
    assert moved.endpoints == (Endpoint(network="easel", ip="172.20.0.9", port=8000),)
    kept = fold(before, report("backoff", ip="", port=0), at(1))
    assert kept is not None
    assert kept.endpoints == (ENDPOINT,)


def test_pins_add_up() -> None:
    """The image may be known before the repository is, and a report without pins takes none away."""
    first = fold(replica("a", "placed"), report("fetching", pins={"containers[0].image": "sha256:1"}), at(1))
    assert first is not None
    second = fold(first, report("fetching", 2, pins={"storage[0].git": "c1"}), at(1))
    assert second is not None
    assert second.pins == {"containers[0].image": "sha256:1", "storage[0].git": "c1"}
    assert fold(second, report("fetching", 3), at(1)) is None


ENDPOINT = Endpoint(network="local", ip="127.0.0.1", port=20001)


def adopted(phase: Any, sequence: int = 1, **more: Any) -> ReplicaReport:
    return report(phase, sequence, **{"agent_run_id": "run-2", "adopted": True, **more})


# Nodes.


def test_silence_of_a_node() -> None:
    """Within the lease nothing changes; then not ready; then lost; back at once."""

    def state(before: str, silent_s: float, connected: bool = False) -> str:
        return verdict(before, silent_s, connected=connected, lease_s=10, lost_s=30).state

    assert state("ready", 9.9) == "ready"
    assert state("ready", 10) == "not_ready"
    assert state("not_ready", 29) == "not_ready"
    assert state("not_ready", 30) == "lost"
    assert state("ready", 31) == "lost"
    assert state("lost", 15) == "lost"
    assert state("lost", 0.1, connected=True) == "ready"
    assert state("not_ready", 5) == "not_ready"


def test_an_illegal_step_is_refused() -> None:
    """By the table, not by luck."""
    with pytest.raises(IllegalTransition):
        verdict("unheard of", 0.0, connected=True, lease_s=10, lost_s=30)
