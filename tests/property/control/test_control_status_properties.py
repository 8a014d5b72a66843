"""Invariants of the status over generated worlds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_contracts.facts import ReplicaState, RouteState, ScaleState
from easel_contracts.spec import Autoscaling, RolloutPolicy
from easel_contracts.states import REPLICA, SERVICE, is_final, step
from easel_control.decide import change, releases
from easel_control.decide.rollout import begun
from easel_control.decide.status import status_of
from easel_control.decide.view import World
from easel_control.model import ServiceRow
from tests.unit.control.rows import NOW, SPEC, content, replica, row, world

LIVING = sorted(s for s in REPLICA if not is_final(REPLICA, s))
CAUSES = ["", "", "NoCapacity", "NoNode", "Exited", "CrashLoop", "ProbeFailed", "Unheard"]
replicas = st.lists(
    st.builds(
        lambda n, state, cause, revision, restarts, out: replica(
            f"r{n}", state, cause=cause, revision=revision, restarts=restarts, out_of_traffic=out
        ),
        st.integers(0, 9), st.sampled_from(LIVING), st.sampled_from(CAUSES), st.integers(1, 2), st.integers(0, 5),
        st.sampled_from(["", "", "", "isolated", "restarting"]),
    ),
    max_size=5, unique_by=lambda r: r.id,
)  # fmt: skip
routed = st.sets(st.sampled_from([f"r{n}" for n in range(10)])).map(lambda s: tuple(sorted(s)))
rollouts = st.none() | st.builds(
    lambda share, state: replace(
        begun(SPEC, RolloutPolicy(), NOW, interrupt=False), share_percent=share, state=state, paused_at=NOW,
        reason="NoProgress" if state == "paused" else "",
    ),
    st.sampled_from([20, 50, 100]), st.sampled_from(["rolling", "paused"]),
)  # fmt: skip
ZERO = Autoscaling(min=0, max=3, targets=(("qps", 1.0),))
rows = st.builds(
    lambda status, wanted, instance, settled, rollout, autoscaling: row(
        status=status, wanted=wanted, instance=instance, settled=settled, generation=2,
        revision=replace(SPEC, number=2), revision_generation=2, rollout=rollout, autoscaling=autoscaling,
    ),
    st.sampled_from(sorted(s for s in SERVICE if s not in ("Deleted", "DeleteFailed", "Deleting"))),
    st.sampled_from(["running", "running", "stopped", "deleted"]), st.integers(1, 3), st.integers(0, 3), rollouts,
    st.sampled_from([None, None, ZERO]),
)  # fmt: skip
scales = st.none() | st.integers(0, 3).map(
    lambda n: ScaleState(service="ocr", generation=2, number=1, before=1, wanted=n, reason="r", message="m")
)


def there(alive: list[ReplicaState], routes: tuple[str, ...], *, holding: bool, scale: ScaleState | None,
          dead: tuple[ReplicaState, ...] = ()) -> World:  # fmt: skip
    route = RouteState(service="ocr", generation=2, state="probed", version="v", replicas=routes, holding=holding)
    return world(*alive, route=route, scale=scale, failed=dead)


@given(rows, replicas, routed, replicas, st.booleans(), scales)
@settings(deadline=None, max_examples=300)
def test_every_step_is_legal_and_it_settles(
    before: ServiceRow, alive: list[ReplicaState], routes: tuple[str, ...], dead: list[ReplicaState], holding: bool,
    scale: ScaleState | None,
) -> None:  # fmt: skip
    """From any status, in any world: only steps of the table, and after a few rounds no step any more."""
    seen_there = there(
        alive, routes, holding=holding, scale=scale, dead=tuple(replace(r, state="failed") for r in dead)
    )  # fmt: skip
    seen = []
    for _ in range(6):
        got = status_of(before, seen_there)
        step("service", SERVICE, before.status, got.status)
        before = replace(before, status=got.status, reason=got.reason, message=got.message, settled=got.settled)
        seen.append((got.status, got.reason, got.message))

    assert seen[-1] == seen[-2], seen


@given(rows, replicas, routed, st.booleans(), scales)
@settings(deadline=None, max_examples=500)
def test_running_means_that_a_request_would_succeed(
    before: ServiceRow, alive: list[ReplicaState], routes: tuple[str, ...], holding: bool, scale: ScaleState | None
) -> None:
    """A replica answers it, or the gateway holds it for one that is to come, without trouble in its way."""
    seen = there(alive, routes, holding=holding, scale=scale)
    got = status_of(replace(before, wanted="running"), seen)
    answers = [r for r in alive if r.id in routes and not r.out_of_traffic and r.state != "draining"]

    if got.status == "Running" and got.reason in ("ScaledToZero", "WakingUp"):
        assert holding
        assert before.autoscaling is not None or got.total == 0
        mine = [r for r in alive if r.revision == before.revision.number and r.out_of_traffic != "isolated"]
        assert not any(r.cause for r in mine if r.state not in ("draining", "ready"))
    elif got.status == "Running" and before.status != "Running":
        assert any(r.state == "ready" for r in answers)
    assert got.running <= len(answers)


@given(rows, st.lists(st.sampled_from(["update", "scale", "stop", "start", "restart", "delete", "look"]), max_size=12))
@settings(deadline=None, max_examples=300)
def test_mutations_take_only_legal_steps_and_count_up(before: ServiceRow, acts: list[str]) -> None:
    now = row(instance=before.instance)
    for act in acts:
        made = None
        try:
            if act == "update":
                made = change.updated(now, content(secrets_changed=True), now.revision.number, NOW)
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
