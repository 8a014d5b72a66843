"""Invariants of the status over generated worlds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_contracts.facts import ReplicaState
from easel_contracts.states import REPLICA, SERVICE, is_final, step
from easel_control.decide import change, releases
from easel_control.decide.status import status_of
from easel_control.model import ServiceRow
from tests.unit.control.rows import NOW, SPEC, content, replica, row, world

LIVING = sorted(s for s in REPLICA if not is_final(REPLICA, s))
CAUSES = ["", "", "NoCapacity", "NoNode", "Exited", "CrashLoop", "ProbeFailed", "Unheard"]
replicas = st.lists(
    st.builds(
        lambda n, state, cause, revision, restarts: replica(
            f"r{n}", state, cause=cause, revision=revision, generation=revision, restarts=restarts
        ),
        st.integers(0, 9), st.sampled_from(LIVING), st.sampled_from(CAUSES), st.integers(1, 2), st.integers(0, 5),
    ),
    max_size=5, unique_by=lambda r: r.id,
)  # fmt: skip
routed = st.sets(st.sampled_from([f"r{n}" for n in range(10)])).map(lambda s: tuple(sorted(s)))
rows = st.builds(
    lambda status, wanted, instance, settled: row(
        status=status, wanted=wanted, instance=instance, settled=settled, generation=2,
        revision=replace(SPEC, number=2), revision_generation=2,
    ),
    st.sampled_from(sorted(s for s in SERVICE if s not in ("Deleted", "DeleteFailed", "Deleting"))),
    st.sampled_from(["running", "running", "stopped", "deleted"]), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip


@given(rows, replicas, routed, replicas)
@settings(deadline=None, max_examples=300)
def test_every_step_is_legal_and_it_settles(
    before: ServiceRow, alive: list[ReplicaState], routes: tuple[str, ...], dead: list[ReplicaState]
) -> None:
    """From any status, in any world: only steps of the table, and after a few rounds no step any more."""
    there = world(*alive, routed=routes, failed=tuple(replace(r, state="failed") for r in dead))
    seen = []
    for _ in range(6):
        got = status_of(before, there)
        step("service", SERVICE, before.status, got.status)
        before = replace(before, status=got.status, reason=got.reason, message=got.message, settled=got.settled)
        seen.append((got.status, got.reason, got.message))

    assert seen[-1] == seen[-2], seen


@given(rows, replicas, routed)
@settings(deadline=None, max_examples=300)
def test_running_means_that_a_request_would_succeed(
    before: ServiceRow, alive: list[ReplicaState], routes: tuple[str, ...]
) -> None:
    got = status_of(replace(before, wanted="running"), world(*alive, routed=routes))

    if got.status == "Running" and before.status != "Running":
        assert any(r.state == "ready" and r.id in routes for r in alive)
    assert got.running <= len(alive)


@given(rows, st.lists(st.sampled_from(["update", "scale", "stop", "start", "restart", "delete", "look"]), max_size=12))
@settings(deadline=None, max_examples=300)
def test_mutations_take_only_legal_steps_and_count_up(before: ServiceRow, acts: list[str]) -> None:
    now = row(instance=before.instance)
    for act in acts:
        made = None
        try:
            if act == "update":
                made = change.updated(now, content(env_changed=True), now.revision.number, NOW)
            elif act == "scale":
                made = change.scaled(now, now.instance % 3 + 1, NOW)
            elif act == "look":
                got = status_of(now, world())
                step("service", SERVICE, now.status, got.status)
                now = replace(now, status=got.status)
            else:
                how = {"stop": change.stopped, "start": change.started, "restart": releases.restarted,
                       "delete": change.deleted}[act]  # fmt: skip
                made = how(now, NOW)
        except Conflict:
            continue
        if made is not None:
            step("service", SERVICE, now.status, made.row.status)
            assert (made.row.generation, made.row.row_version) == (now.generation + 1, now.row_version + 1)
            now = made.row
