"""Facts as outsiders see them: which ones a watcher asked for, and how one is written down as an event.

Must never add what the fact does not carry; facts hold no secrets, so neither do events.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from easel_contracts import facts, ids
from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.facts import Fact

TAIL_MOST = 1000


class Filter(Struct, frozen=True, kw_only=True):
    """Which facts: all of a workspace, of an entity, or of one key."""

    workspace: str
    entity: str = ""
    key: str = ""

    @property
    def subject(self) -> str:
        """As a NATS subject with wildcards."""
        entity = self.entity or "*"
        key = ids.token(self.key) if self.key else "*"
        return f"easel.fact.{self.workspace}.{entity}.{key}.*"


class Stored(Struct, frozen=True, kw_only=True):
    """A message as a stream holds it."""

    sequence: int
    subject: str
    at: datetime
    payload: bytes
    id: str = ""
    """Nats-Msg-Id."""
    error: str = ""
    """Dead letters: why it could not be handled, and by whom."""


class EventView(Struct, frozen=True, kw_only=True):
    """A fact, ready to be shown."""

    sequence: int
    id: str
    type: str
    subject: str
    key: str
    at: datetime
    reason: str = ""
    message: str = ""
    actor: str = ""
    data_json: str = ""
    error: str = ""
    traceparent: str = ""


def filter_of(workspace: str, entity: str, key: str) -> Filter:
    """A checked filter; raises InvalidInput naming each wrong field."""
    wrong = []
    if entity and entity not in facts.VERBS:
        wrong.append(_field("entity", f"{entity!r} is not one of {', '.join(facts.VERBS)}"))
    for name, value in (("workspace", workspace), ("key", key)):
        if value and ids.token(value) != value:
            wrong.append(_field(name, f"{value!r} must not contain spaces, dots, * or >"))
    if wrong:
        raise InvalidInput("the event filter is wrong: " + "; ".join(w.message for w in wrong), tuple(wrong))
    return Filter(workspace=workspace or ids.DEFAULT_WORKSPACE, entity=entity, key=key)


def check_tail(tail: int) -> int:
    """How many of the newest facts; raises InvalidInput outside 0 to TAIL_MOST."""
    if not 0 <= tail <= TAIL_MOST:
        message = f"{tail} is not between 0 and {TAIL_MOST}"
        raise InvalidInput(f"tail: {message}", (FieldError(path="tail", code="OUT_OF_RANGE", message=message),))
    return tail


def view(stored: Stored) -> EventView:
    """A stored fact as an event; what cannot be read (a dead letter may be anything) is shown with its error."""
    try:
        fact = facts.decode(stored.payload)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return EventView(
            sequence=stored.sequence, id="", type="unreadable", subject=stored.subject, key="", at=stored.at,
            error=stored.error or f"cannot be read: {error}",
        )  # fmt: skip
    return EventView(
        sequence=stored.sequence,
        id=fact.id,
        type=fact.type,
        subject=fact.subject,
        key=fact.key,
        at=fact.at,
        reason=fact.cause.reason,
        message=fact.cause.message,
        actor=fact.cause.actor,
        data_json=msgspec.json.encode(state(fact)).decode(),
        error=stored.error,
        traceparent=fact.cause.traceparent or "",
    )


def state(fact: Fact) -> Any:
    """The entity's public state as plain data, fields this version does not know included."""
    return msgspec.msgpack.decode(fact.data)


def is_wanted(stored: Stored, wanted: Filter) -> bool:
    """Whether a dead letter's fact is one of the wanted; unreadable ones are shown to everyone."""
    try:
        fact = facts.decode(stored.payload)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return True
    return (
        fact.workspace == wanted.workspace
        and wanted.entity in ("", fact.entity)
        and (not wanted.key or ids.token(fact.key) == wanted.key)
    )


def _field(path: str, message: str) -> FieldError:
    return FieldError(path=path, code="NOT_ALLOWED", message=f"{path}: {message}")
