"""What creation, rotation, deletion and time make of an owner's tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from easel_contracts.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from easel_control.decide.tokens import MAX_TOKENS, Token, TokenChange, Tokens, created, deleted, expired, good, rotated

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
WHOLE = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
FIRST = Token(name="default", value="default-value", created_at=NOW)


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


def make(tokens: Tokens, name: str = "mobile", value: str = "mobile-value", **more: Any) -> TokenChange:
    asked: dict[str, Any] = {"expires_in_s": 0, "rate_limit_qps": 0, "now": NOW}
    return created(tokens, name, value, **(asked | more))


def rotate(tokens: Tokens, name: str = "mobile", value: str = "newer-value", **more: Any) -> TokenChange:
    asked: dict[str, Any] = {"overlap_s": 60, "now": NOW}
    return rotated(tokens, name, value, **(asked | more))


def values(tokens: Tokens, at: datetime = NOW) -> dict[str, str]:
    return {t.name: t.value for t in good(tokens, at)}


def test_created_with_expiry_and_limit() -> None:
    """The expiry is a whole second, never earlier than asked for."""
    change = make((FIRST,), expires_in_s=10, rate_limit_qps=5)

    assert change.token == Token(name="mobile", value="mobile-value", created_at=NOW,
                                 expires_at=WHOLE + timedelta(seconds=10), rate_limit_qps=5)  # fmt: skip
    assert values(change.tokens) == {"default": "default-value", "mobile": "mobile-value"}
    assert values(change.tokens, seconds(10.5)).keys() == {"default", "mobile"}
    assert values(change.tokens, seconds(10.75)).keys() == {"default"}


def test_everything_wrong_at_once_without_the_value() -> None:
    with pytest.raises(InvalidInput) as caught:
        make((FIRST,), "Mobile!", "short", expires_in_s=-1, rate_limit_qps=10**9)

    assert [(f.path, f.code) for f in caught.value.fields] == [
        ("name", "OUT_OF_RANGE"), ("value", "OUT_OF_RANGE"), ("expires_in_s", "OUT_OF_RANGE"),
        ("rate_limit", "OUT_OF_RANGE"),
    ]  # fmt: skip
    assert "8 to 256 printable" in caught.value.fields[1].message
    assert "short" not in str(caught.value)
    with pytest.raises(InvalidInput) as missing:
        make((FIRST,), "")
    assert [(f.path, f.code) for f in missing.value.fields] == [("name", "MISSING")]


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "x" * 63])
def test_names(name: str) -> None:
    assert make((FIRST,), name).token.name == name


@pytest.mark.parametrize("name", ["A", "-a", "_a", "a.1", "a/b", "a b", "x" * 64, "ä", "a\n"])
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        make((FIRST,), name)


def test_a_value_belongs_to_one_token() -> None:
    """Told by name, also for a rotation to the value it has."""
    tokens = make((FIRST,)).tokens

    with pytest.raises(InvalidInput, match="the value of the token default already") as caught:
        make(tokens, "other", "default-value")
    assert caught.value.fields[0].path == "value"
    with pytest.raises(InvalidInput, match="the value of the token mobile already"):
        rotate(tokens, "mobile", "mobile-value")


def test_a_taken_name() -> None:
    for name in ("default", "mobile"):
        with pytest.raises(AlreadyExists, match=f"a token {name} already"):
            make(make((FIRST,)).tokens, name, "another-value")


def test_a_name_and_value_whose_token_has_expired_are_free() -> None:
    tokens = make((FIRST,), expires_in_s=10).tokens

    again = make(tokens, now=seconds(11))

    assert values(again.tokens, seconds(1000)) == {"default": "default-value", "mobile": "mobile-value"}


@pytest.mark.parametrize("name", ["default", "mobile"])
def test_rotation_keeps_the_value_before_for_a_while(name: str) -> None:
    tokens = make((FIRST,), rate_limit_qps=7).tokens

    change = rotate(tokens, name)

    older = next(t for t in change.tokens if t.name == f"{name}.1")
    assert change.token.value == "newer-value"
    assert (older.value, older.rotated, older.expires_at) == (f"{name}-value", True, WHOLE + timedelta(seconds=60))
    assert older.rate_limit_qps == change.token.rate_limit_qps == (7 if name == "mobile" else 0)
    assert "is good until 2026-01-01 12:01:01 UTC" in change.message
    assert f"{name}.1" in values(change.tokens, seconds(60))
    assert f"{name}.1" not in values(change.tokens, seconds(61))


def test_rotation_without_overlap() -> None:
    assert values(rotate((FIRST,), "default", overlap_s=0).tokens) == {"default": "newer-value"}


def test_the_value_before_lives_no_longer_than_it_would_have() -> None:
    change = rotate(make((FIRST,), expires_in_s=10).tokens, overlap_s=3600)

    assert {t.name: t.expires_at for t in change.tokens if t.name != "default"} == {
        "mobile": WHOLE + timedelta(seconds=10), "mobile.1": WHOLE + timedelta(seconds=10),
    }  # fmt: skip


def test_rotation_twice() -> None:
    """Each older value has a number of its own, never one in use."""
    once = rotate((FIRST,), "default", overlap_s=10).tokens
    twice = rotate(once, "default", "third-value", now=seconds(5)).tokens

    assert values(twice, seconds(6)) == {
        "default": "third-value", "default.1": "default-value", "default.2": "newer-value",
    }  # fmt: skip
    third = rotate(twice, "default", "fourth-value", now=seconds(20)).tokens
    assert values(third, seconds(20)).keys() == {"default", "default.2", "default.3"}


def test_an_older_value_is_not_rotated_but_can_be_deleted() -> None:
    tokens = rotate((FIRST,), "default").tokens

    with pytest.raises(Conflict, match=r"default\.1 is an older value of default"):
        rotate(tokens, "default.1", "another-value")
    assert values(deleted(tokens, "default.1", NOW).tokens) == {"default": "newer-value"}


def test_deletion_takes_older_values_along() -> None:
    tokens = rotate(make((FIRST,)).tokens).tokens

    change = deleted(tokens, "mobile", NOW)

    assert values(change.tokens) == {"default": "default-value"}
    assert change.message == "token mobile was deleted, with its older values"


def test_default_cannot_be_deleted() -> None:
    with pytest.raises(Conflict) as caught:
        deleted((FIRST,), "default", NOW)

    assert caught.value.code == "DEFAULT_TOKEN"
    assert "rotate" in caught.value.hint


def test_what_is_not_there() -> None:
    gone = make((FIRST,), expires_in_s=1).tokens
    with pytest.raises(NotFound, match="no token 'mobile'; there are default"):
        deleted(gone, "mobile", seconds(5))
    with pytest.raises(NotFound, match="no token 'mobile'; there are default"):
        rotate(gone, now=seconds(5))


def test_how_many() -> None:
    """Older values count; what has expired does not."""
    tokens: Tokens = (FIRST,)
    for number in range(MAX_TOKENS - 1):
        tokens = make(tokens, f"t{number}", f"value-{number:04}", expires_in_s=60).tokens

    with pytest.raises(Conflict, match="33 tokens"):
        make(tokens)
    with pytest.raises(Conflict, match="33 tokens"):
        rotate(tokens, "t1")
    assert len(rotate(tokens, "t1", overlap_s=0).tokens) == MAX_TOKENS
    assert len(make(tokens, now=seconds(100)).tokens) == 2


def test_time_removes_what_has_expired() -> None:
    tokens = rotate(make((FIRST,), expires_in_s=100).tokens, "default", overlap_s=10).tokens

    assert expired(tokens, seconds(10)) is None
    first = expired(tokens, seconds(11))
    assert first is not None
    assert (first.reason, first.message) == ("TokenExpired", "token default.1 has expired")
    assert {t.name for t in first.tokens} == {"default", "mobile"}
    both = expired(tokens, seconds(200))
    assert both is not None
    assert both.message == "tokens default.1, mobile have expired"


def test_no_value_in_a_repr() -> None:
    assert "default-value" not in repr(make((FIRST,)))
