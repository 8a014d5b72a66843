"""Errors that users see: a code, a sentence, a hint.

EaselError
├── InvalidInput        the caller's data is wrong; lists every field at once
├── NotFound            no such thing
├── AlreadyExists       the name, or the idempotency key, is taken
├── Conflict            the thing is not in a state for this
├── Unauthenticated     no or wrong access key
├── Refused             allowed by the rules, but not now (no room, disk full, not supported yet)
└── Unavailable         a part of Easel does not answer; safe to try again
"""

from __future__ import annotations

from msgspec import Struct


class FieldError(Struct, frozen=True, kw_only=True):
    """One thing wrong with one field."""

    path: str
    """E.g. `containers[0].port`; empty for the whole document."""
    code: str
    """E.g. UNKNOWN_KEY, WRONG_TYPE, OUT_OF_RANGE, MISSING, NOT_SUPPORTED_YET, SYNTAX."""
    message: str
    """What was wrong and what is allowed."""
    hint: str = ""
    line: int | None = None
    column: int | None = None


class EaselError(Exception):
    """Base of all errors with a meaning for users."""

    def __init__(self, code: str, message: str, hint: str = "", **metadata: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.metadata = metadata

    def __str__(self) -> str:
        return f"{self.message} ({self.code})" + (f"\nhint: {self.hint}" if self.hint else "")


class InvalidInput(EaselError):
    """The caller's data is wrong; `fields` lists everything at once."""

    def __init__(self, message: str, fields: tuple[FieldError, ...] = (), *, code: str = "INVALID_INPUT",
                 hint: str = "") -> None:  # fmt: skip
        super().__init__(code, message, hint)
        self.fields = fields


class NotFound(EaselError):
    """No such thing."""


class AlreadyExists(EaselError):
    """The name, or the idempotency key, is taken."""


class Conflict(EaselError):
    """The thing is not in a state for this."""


class Unauthenticated(EaselError):
    """No or wrong access key."""


class Refused(EaselError):
    """Allowed by the rules, but not now."""


class Unavailable(EaselError):
    """A part of Easel does not answer; safe to try again."""
