"""The tokens of a service or a group: what a creation, rotation, deletion or the passing of time makes of them. Pure.

All tokens of an owner in, all of them out. One is named `default` and is always there; further ones may expire and may
be limited. A rotated token's value before is kept as a token of its own, `NAME.1`, until its overlap ends, so that a
caller with either value finds no gap. What has expired is gone, whether or not it has been removed yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.errors import AlreadyExists, Conflict, FieldError, InvalidInput, NotFound
from easel_control.decide.keys import BY_PATH

DEFAULT = "default"
MAX_TOKENS = 32
"""Of one owner, `default` and older values included."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
NAME_SAYS = "1 to 63 lower-case letters, digits, _ and -, of which the first is a letter or a digit"
LONGEST_S = 10 * 365 * 86_400
LONGEST_OVERLAP_S = 30 * 86_400
MAX_RATE_LIMIT = 1_000_000


class Token(Struct, frozen=True, kw_only=True):
    """What opens an owner to callers, in clear: never to be logged, told or stored."""

    name: str
    value: str
    created_at: datetime
    expires_at: datetime | None = None
    """A whole second, from which on it is no good; None: it never expires."""
    rate_limit_qps: int = 0
    """Requests per second with this token; 0: no limit."""
    rotated: bool = False
    """An older value of the token that its name begins with."""

    def __repr__(self) -> str:
        return f"Token({self.name!r}, …)"

    @property
    def of(self) -> str:
        """Name of the token that this is, or once was, the value of."""
        return self.name.rpartition(".")[0] if self.rotated else self.name


Tokens = tuple[Token, ...]


class TokenChange(Struct, frozen=True, kw_only=True):
    """An owner's tokens after a change."""

    tokens: Tokens
    token: Token
    """The one that was asked about, as it is now or, where it went, was last."""
    reason: str
    message: str


def good(tokens: Iterable[Token], now: datetime) -> Tokens:
    """Those that open now, `default` first, then by name."""
    living = (t for t in tokens if t.expires_at is None or t.expires_at > now)
    return tuple(sorted(living, key=lambda t: (t.name != DEFAULT, t.name)))


def created(
    tokens: Tokens, name: str, value: str, *, expires_in_s: int, rate_limit_qps: int, now: datetime
) -> TokenChange:
    """One more token; raises InvalidInput with everything wrong, AlreadyExists, Conflict."""
    tokens = good(tokens, now)
    errors = [*_name_errors(name), *value_errors(tokens, value)]
    errors += _range("expires_in_s", expires_in_s, LONGEST_S, "seconds; 0: it never expires")
    errors += _range("rate_limit", rate_limit_qps, MAX_RATE_LIMIT, "requests per second; 0: no limit")
    _refuse(errors)
    if any(t.name == name for t in tokens):
        raise AlreadyExists(
            "TOKEN_EXISTS", f"there is a token {name} already", "rotate gives it a new value; or choose another name"
        )
    refuse_too_many(len(tokens) + 1)
    expires_at = _after(now, expires_in_s) if expires_in_s else None
    made = Token(name=name, value=value, created_at=now, expires_at=expires_at, rate_limit_qps=rate_limit_qps)
    return TokenChange(tokens=(*tokens, made), token=made, reason="TokenCreated", message=f"token {name} was created")


def rotated(tokens: Tokens, name: str, value: str, *, overlap_s: int, now: datetime) -> TokenChange:
    """A new value for a token, with its expiry and limit; the one before is good for `overlap_s` more, but never
    longer than it was. Raises InvalidInput with everything wrong, NotFound, Conflict."""
    tokens = good(tokens, now)
    before = _named(tokens, name)
    errors = value_errors(tokens, value)
    errors += _range("overlap_s", overlap_s, LONGEST_OVERLAP_S, "seconds; 0: the value before goes at once")
    _refuse(errors)
    if before.rotated:
        raise Conflict("ROTATED", f"token {name} is an older value of {before.of}", f"rotate {before.of}, or delete it")
    after = replace(before, value=value, created_at=now)
    others = tuple(t for t in tokens if t is not before)
    if not overlap_s:
        message = f"token {name} has a new value; the one before went at once"
        return TokenChange(tokens=(*others, after), token=after, reason="TokenRotated", message=message)
    refuse_too_many(len(tokens) + 1)
    until = _after(now, overlap_s)
    if before.expires_at is not None:
        until = min(until, before.expires_at)
    older = replace(before, name=_older_name(tokens, name), expires_at=until, rotated=True)
    message = f"token {name} has a new value; the one before is good until {until:%Y-%m-%d %H:%M:%S} UTC"
    return TokenChange(tokens=(*others, after, older), token=after, reason="TokenRotated", message=message)


def deleted(tokens: Tokens, name: str, now: datetime) -> TokenChange:
    """Without a token and its older values; raises NotFound, Conflict for `default`."""
    tokens = good(tokens, now)
    gone = _named(tokens, name)
    if name == DEFAULT:
        raise Conflict("DEFAULT_TOKEN", "the token default cannot be deleted, for there must always be one",
                       "rotate gives it a new value; with an overlap of 0 the one before goes at once")  # fmt: skip
    left = tuple(t for t in tokens if t.name != name and t.of != name)
    older = len(tokens) - len(left) - 1
    message = f"token {name} was deleted" + (", with its older values" if older else "")
    return TokenChange(tokens=left, token=gone, reason="TokenDeleted", message=message)


def expired(tokens: Tokens, now: datetime) -> TokenChange | None:
    """Without those that have expired; None: none has."""
    left = good(tokens, now)
    gone = sorted((t for t in tokens if t not in left), key=lambda t: t.name)
    if not gone:
        return None
    names = ", ".join(t.name for t in gone)
    message = f"token {names} has expired" if len(gone) == 1 else f"tokens {names} have expired"
    return TokenChange(tokens=left, token=gone[0], reason="TokenExpired", message=message)


def value_errors(tokens: Iterable[Token], value: str, path: str = "value") -> list[FieldError]:
    """What is wrong with a new value among an owner's tokens. Never says the value."""
    key = BY_PATH["token"]
    if not key.min_length <= len(value) <= key.max_length or re.fullmatch(key.pattern, value) is None:
        says = f"a value is {key.pattern_says}; this one has {len(value)} characters"
        return [FieldError(path=path, code="OUT_OF_RANGE", message=says, hint="leave it out: one is made then")]
    same = next((t for t in tokens if t.value == value), None)
    if same is None:
        return []
    message = f"it is the value of the token {same.name} already; each has a value of its own"
    return [FieldError(path=path, code="CONFLICT", message=message, hint="choose another, or delete that token")]


def refuse_too_many(count: int) -> None:
    """Raises Conflict where an owner would have more tokens than it may."""
    if count > MAX_TOKENS:
        raise Conflict("TOO_MANY_TOKENS", f"there would be {count} tokens, older values included; {MAX_TOKENS} are "
                       "allowed", "delete one that is not used; or rotate with an overlap of 0")  # fmt: skip


def _named(tokens: Tokens, name: str) -> Token:
    found = next((t for t in tokens if t.name == name), None)
    if found is None:
        there = ", ".join(t.name for t in tokens)
        raise NotFound("NO_SUCH_TOKEN", f"there is no token {name[:80]!r}; there are {there}")
    return found


def _older_name(tokens: Tokens, name: str) -> str:
    """`NAME.1`, or one more than the highest there is."""
    numbers = [int(t.name.rpartition(".")[2]) for t in tokens if t.rotated and t.of == name]
    return f"{name}.{max(numbers, default=0) + 1}"


def _after(now: datetime, seconds: int) -> datetime:
    """The first whole second by which so many have passed: Envoy compares whole ones."""
    at = now + timedelta(seconds=seconds)
    return at if at.microsecond == 0 else at.replace(microsecond=0) + timedelta(seconds=1)


def _name_errors(name: str) -> list[FieldError]:
    if not name:
        return [FieldError(path="name", code="MISSING", message=f"a token has a name: {NAME_SAYS}")]
    if NAME.fullmatch(name) is None:
        return [FieldError(path="name", code="OUT_OF_RANGE", message=f"{name[:80]!r} is no name; one has {NAME_SAYS}")]
    return []


def _range(path: str, value: int, most: int, unit: str) -> list[FieldError]:
    if 0 <= value <= most:
        return []
    return [FieldError(path=path, code="OUT_OF_RANGE", message=f"{value} is not allowed; 0 to {most} is ({unit})")]


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        said = "; ".join(f"{e.path}: {e.message}" for e in errors)
        raise InvalidInput(f"the token is refused: {said}", tuple(errors))
