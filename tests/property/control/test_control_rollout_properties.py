"""Invariants of rollouts over generated scenes, and over lives of services that are changed at any moment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_contracts.facts import ReplicaState
from easel_contracts.spec import RolloutPolicy
from easel_contracts.states import SERVICE, step
from easel_control.decide import change, releases
from easel_control.decide.releases import Laid
from easel_control.decide.rollout import Scene, advance, begun, look_again_s, scene_of, wave_size
from easel_control.decide.status import status_of
from easel_control.decide.view import view_of
from easel_control.model import RolloutRow, ServiceRow, service_state
from tests.unit.control.rows import NOW, SPEC, content, replica, row, world

LAID = Laid(config_sealed=b"laid", config_shown="{}")
NAMES = [f"r{n}" for n in range(6)]

moments = st.integers(-1000, 1000).map(lambda s: NOW + timedelta(seconds=s))
policies = st.builds(
    RolloutPolicy, waves=st.sets(st.integers(1, 99), max_size=3).map(lambda s: (*sorted(s), 100)),
    wave_pause_s=st.sampled_from([0.0, 60.0]), stop_after=st.sampled_from([1, 2, "50%"]),
    on_failure=st.sampled_from(["revert", "pause"]), revert_after_s=st.sampled_from([0.0, 30.0]),
    progress_timeout_s=st.sampled_from([1.0, 600.0]),
)  # fmt: skip
names = st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple)
scenes = st.builds(
    Scene, now=moments, wanted=st.integers(0, 9), serving=st.integers(0, 10), older=st.integers(0, 5),
    failing=names.map(lambda ids: tuple(replica(i, "failed", revision=2, cause="CrashLoop") for i in ids)),
    no_room=st.booleans(),
)  # fmt: skip
rolling = st.builds(
    RolloutRow, stable=st.just(SPEC), began_at=st.just(NOW), share_percent=st.integers(1, 100),
    progress_at=st.none() | moments, served_at=st.none() | moments, most_serving=st.integers(0, 9),
    took_over=st.booleans(), forgiven=names,
)  # fmt: skip
paused = st.builds(
    lambda r, at, reason: replace(r, state="paused", paused_at=at, reason=reason),
    rolling, moments, st.sampled_from(["RevisionFailing", "NoProgress", "PausedByUser"]),
)  # fmt: skip


@given(rolling | paused, policies, scenes)
@settings(deadline=None, max_examples=300)
def test_one_look_is_at_most_one_step(before: RolloutRow, policy: RolloutPolicy, seen: Scene) -> None:
    """The same arguments give the same step, and a wave is never passed over that would have added a replica."""
    got = advance(before, policy, seen)

    assert got == advance(before, policy, seen)
    if got is not None and got.kind == "wave":
        assert got.rollout is not None
        now, then = before.share_percent, got.rollout.share_percent
        between = [w for w in policy.waves if now < w < then]
        may = wave_size(now, seen.wanted)
        assert then > now
        assert may < wave_size(then, seen.wanted)
        assert all(wave_size(w, seen.wanted) == may for w in between)
        assert seen.serving >= may


@given(rolling, policies, scenes)
@settings(deadline=None, max_examples=300)
def test_the_same_world_seen_again_and_again_comes_to_rest(
    before: RolloutRow, policy: RolloutPolicy, seen: Scene
) -> None:
    at: RolloutRow | None = before
    for _ in range(3 * len(policy.waves) + 4):
        assert at is not None
        got = advance(at, policy, seen)
        if got is None or got.kind in ("finish", "revert"):
            return
        at = got.rollout
    raise AssertionError(f"still moving: {at}")


@given(rolling, policies, st.lists(scenes, max_size=12))
@settings(deadline=None, max_examples=200)
def test_a_share_never_falls_and_what_rolls_ends_only_when_nothing_older_is_left(
    before: RolloutRow, policy: RolloutPolicy, life: list[Scene]
) -> None:
    at = before
    for seen in life:
        got = advance(at, policy, seen)
        if got is None:
            continue
        if got.kind == "finish":
            assert at.state == "rolling"
            assert seen.older == 0 < seen.serving
            return
        if got.kind == "revert":
            assert at.state == "paused"
            return
        assert got.rollout is not None
        assert got.rollout.share_percent >= at.share_percent
        assert got.rollout.stable == at.stable
        at = got.rollout


@given(paused, policies, scenes, scenes)
@settings(deadline=None, max_examples=300)
def test_a_paused_rollout_changes_by_time_alone(
    before: RolloutRow, policy: RolloutPolicy, seen: Scene, other: Scene
) -> None:
    """Whatever its replicas do: nothing, or the way back when its time has come."""
    got = advance(before, policy, seen)

    assert got == advance(before, policy, replace(other, now=seen.now))
    assert got is None or got.kind == "revert"
    assert before.paused_at is not None
    due = before.paused_at + timedelta(seconds=policy.revert_after_s)
    by_itself = policy.on_failure == "revert" and before.reason != "PausedByUser"
    assert (got is not None) == (by_itself and seen.now >= due)


@given(rolling | paused, policies, scenes, st.floats(0, 0.999))
@settings(deadline=None, max_examples=300)
def test_it_is_looked_at_again_before_time_alone_decides_otherwise(
    before: RolloutRow, policy: RolloutPolicy, seen: Scene, share: float
) -> None:
    if advance(before, policy, seen) is not None:
        return
    again_s = look_again_s(before, policy, seen)
    later_s = 10**7 if again_s is None else again_s * share

    assert advance(before, policy, replace(seen, now=seen.now + timedelta(seconds=later_s))) is None


living = st.lists(
    st.builds(
        lambda n, state, cause, revision, nonce: replica(
            n, state, cause=cause, revision=revision, restart_nonce=nonce, restarts=4 if cause else 0
        ),
        st.sampled_from(NAMES), st.sampled_from(["starting", "ready", "ready", "unready", "draining"]),
        st.sampled_from(["", "", "", "NoCapacity", "Exited"]), st.integers(1, 3), st.integers(0, 2),
    ),
    max_size=4, unique_by=lambda r: r.id,
)  # fmt: skip
acts = st.tuples(
    st.sampled_from(["look", "look", "look", "update", "restart", "switch", "pause", "resume", "revert", "stop",
                     "start"]),
    living, st.lists(st.sampled_from(NAMES), max_size=4).map(tuple), st.integers(0, 700),
)  # fmt: skip


def looked(before: ServiceRow, there: Any) -> ServiceRow:
    """As the status loop does."""
    row_ = before
    if before.rollout is not None and before.wanted == "running":
        move = advance(before.rollout, before.rolling, scene_of(view_of(before, there), there.now))
        if move is not None and move.kind == "revert":
            made = releases.taken_back(before, LAID, move.reason, move.message, there.now)
            assert_taken_back(before, made.row)
            row_ = made.row
        elif move is not None:
            row_ = replace(before, rollout=move.rollout)
    got = status_of(row_, there)
    step("service", SERVICE, row_.status, got.status)
    return replace(row_, status=got.status, reason=got.reason, settled=got.settled, proven=got.proven)


def assert_taken_back(before: ServiceRow, after: ServiceRow) -> None:
    assert before.rollout is not None
    assert after.revision == before.rollout.stable
    assert after.rollout is None
    assert after.reverted is not None
    assert after.generation == before.generation + 1
    assert service_state(after).rollout is None


def acted(before: ServiceRow, act: str, alive: list[ReplicaState], there: Any) -> ServiceRow:
    now = there.now
    made = None
    if act == "update":
        made = change.updated(before, content(secrets_changed=True), before.latest, now)
    elif act == "restart":
        made = releases.restarted(before, now)
    elif act == "switch":
        number = before.latest - 1 or 1
        made = releases.switched(before, replace(SPEC, number=number), LAID, there, now)
    elif act == "pause":
        made = releases.paused(before, "ek1", now)
    elif act == "resume":
        made = releases.resumed(before, tuple(r.id for r in alive), "ek1", now)
    elif act == "revert":
        made = releases.taken_back(before, LAID, "RevertAsked", "asked", now)
        assert_taken_back(before, made.row)
    else:
        made = {"stop": change.stopped, "start": change.started}[act](before, now)
    if made is None:
        return before
    assert (made.row.generation, made.row.row_version) == (before.generation + 1, before.row_version + 1)
    return made.row


@given(policies, st.lists(acts, max_size=15))
@settings(deadline=None, max_examples=300)
def test_lives_of_services(
    policy: RolloutPolicy, life: list[tuple[str, list[ReplicaState], tuple[str, ...], int]]
) -> None:
    """Whoever does what when: one revision is kept while another comes up, and it is the one that had served."""
    at, now = row(rolling=policy), NOW
    given_out = {(1, 0)}
    for act, alive, routed, seconds in life:
        now += timedelta(seconds=seconds)
        there = world(*alive, routed=routed, now=now)
        before = at
        try:
            at = looked(at, there) if act == "look" else acted(at, act, alive, there)
        except Conflict:
            continue
        assert at.latest >= before.latest
        assert at.revision.number <= at.latest
        if at.rollout is not None:
            assert at.proven
            assert (at.rollout.stable.number, at.rollout.stable.restart_nonce) != (
                at.revision.number, at.revision.restart_nonce,
            )  # fmt: skip
        if act == "restart":
            assert (at.revision.number, at.revision.restart_nonce) not in given_out
        given_out.add((at.revision.number, at.revision.restart_nonce))


@given(policies, st.integers(1, 9))
@settings(deadline=None, max_examples=100)
def test_a_good_revision_is_rolled_out_in_the_end(policy: RolloutPolicy, wanted: int) -> None:
    """With replicas that come up as they may, a rollout ends by itself, at the latest after each wave's pause."""
    at: RolloutRow | None = begun(SPEC, policy, NOW, interrupt=False)
    now, serving = NOW, 0
    for _ in range(6 * len(policy.waves) + 6):
        assert at is not None
        serving = max(serving, wave_size(at.share_percent, wanted))
        got = advance(at, policy, Scene(now=now, wanted=wanted, serving=serving, older=wanted - serving))
        if got is None:
            again_s = look_again_s(at, policy, Scene(now=now, wanted=wanted, serving=serving, older=wanted - serving))
            assert again_s is not None
            now += timedelta(seconds=again_s)
            continue
        assert got.kind in ("note", "wave", "finish")
        if got.kind == "finish":
            assert serving == wanted
            return
        at = got.rollout
    raise AssertionError(f"not over: {at}")
