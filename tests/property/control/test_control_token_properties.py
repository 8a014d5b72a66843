"""Invariants of an owner's tokens over any changes in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.errors import EaselError
from easel_control.decide import tokens as decide
from easel_control.decide.tokens import DEFAULT, MAX_TOKENS, Token, Tokens, good

START = datetime(2026, 1, 1, tzinfo=UTC)
FRESH: Tokens = (Token(name=DEFAULT, value="value-0000", created_at=START),)
names = st.sampled_from([DEFAULT, "a", "b", "a.1", "default.1", "default.2"])
values = st.integers(0, 12).map(lambda n: f"value-{n:04}")
steps = st.lists(
    st.tuples(st.sampled_from(["create", "rotate", "delete", "sweep"]), names, values, st.integers(0, 40),
              st.floats(0, 30)),
    max_size=40,
)  # fmt: skip


def apply(tokens: Tokens, step: tuple[str, str, str, int, float], now: datetime) -> Tokens:
    kind, name, value, number, _ = step
    try:
        if kind == "create":
            return decide.created(tokens, name, value, expires_in_s=number, rate_limit_qps=0, now=now).tokens
        if kind == "rotate":
            return decide.rotated(tokens, name, value, overlap_s=number, now=now).tokens
        if kind == "delete":
            return decide.deleted(tokens, name, now).tokens
    except EaselError:
        return tokens
    swept = decide.expired(tokens, now)
    return tokens if swept is None else swept.tokens


@given(steps)
def test_one_default_unique_names_and_values_and_never_too_many(
    done: list[tuple[str, str, str, int, float]],
) -> None:
    """Whatever is done, and whatever is refused."""
    now, tokens = START, FRESH
    for step in done:
        now += timedelta(seconds=step[4])
        tokens = apply(tokens, step, now)
        living = good(tokens, now)
        assert [t.name for t in living].count(DEFAULT) == 1
        assert living[0].expires_at is None
        assert len({t.name for t in living}) == len({t.value for t in living}) == len(living) <= MAX_TOKENS
        assert all(t.of in {*names_of(living)} or t.expires_at is not None for t in living if t.rotated)


def names_of(tokens: Tokens) -> set[str]:
    return {t.name for t in tokens}


@given(steps, st.sampled_from([DEFAULT, "a"]), st.integers(0, 100), st.lists(st.floats(0, 200), max_size=20))
def test_a_rotation_leaves_no_gap(
    before: list[tuple[str, str, str, int, float]], name: str, overlap_s: int, moments: list[float]
) -> None:
    """From the change on the new value is good, and for the whole overlap the one before too, unless that would have
    expired by itself: so callers who change over within it never meet a value that is not."""
    now, tokens = START, FRESH
    for step in before:
        now += timedelta(seconds=step[4])
        tokens = apply(tokens, step, now)
    old = next((t for t in good(tokens, now) if t.name == name), None)
    if old is None:
        return
    after = decide.rotated(tokens, name, "the-new-value", overlap_s=overlap_s, now=now).tokens
    for moment in moments:
        at = now + timedelta(seconds=moment)
        swept = decide.expired(after, at)
        is_good = {t.value for t in good(after, at)}
        assert swept is None or is_good == {t.value for t in swept.tokens}, "removing what expired changes nothing"
        would_live = old.expires_at is None or at < old.expires_at
        assert ("the-new-value" in is_good) == would_live
        if would_live and moment < overlap_s:
            assert old.value in is_good
        if moment >= overlap_s + 1:
            assert old.value not in is_good
