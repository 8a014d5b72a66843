"""Idempotency keys: the same key with the same request answers the same again, with another request it is refused.

Answers are sealed, because they hold tokens; requests are kept as keyed hashes only.
"""

from __future__ import annotations

import hmac

from msgspec import Struct

from easel_contracts.errors import AlreadyExists, InvalidInput
from easel_control.pages import plain
from easel_control.vault import Vault
from easel_kit.db import Connection

MAX_KEY_LENGTH = 200


class Ticket(Struct, frozen=True, kw_only=True):
    """A mutation that may be repeated."""

    workspace: str
    actor: str
    key: str
    """Empty: the request carries none and is not remembered."""
    request_hash: bytes


class Answers:
    """Remembers answers in control's schema."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def ticket(self, workspace: str, actor: str, key: str, method: str, request: bytes) -> Ticket:
        """The ticket of a request; raises InvalidInput where the key is too long."""
        if len(key) > MAX_KEY_LENGTH:
            raise InvalidInput(f"the idempotency key has {len(key)} characters; at most {MAX_KEY_LENGTH} are allowed")
        plain(key)
        digest = self._vault.digest(method.encode() + b"\0" + request)
        return Ticket(workspace=workspace, actor=actor, key=key, request_hash=digest)

    async def alone(self, connection: Connection, ticket: Ticket) -> None:
        """Waits until no other request with the ticket's key is being worked at, and lets none begin until the
        transaction ends. Then `find` tells whether it was answered: a repeat that comes at the same time must not be
        refused for what the first one did."""
        if ticket.key:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", _purpose(ticket))

    async def find(self, connection: Connection, ticket: Ticket) -> bytes | None:
        """What was answered; raises AlreadyExists where the key belongs to another request."""
        if not ticket.key:
            return None
        row = await connection.fetchrow(
            "SELECT request_hash, answer FROM idempotency WHERE workspace = $1 AND actor = $2 AND key = $3",
            ticket.workspace, ticket.actor, ticket.key,
        )  # fmt: skip
        if row is None:
            return None
        if not hmac.compare_digest(row["request_hash"], ticket.request_hash):
            raise AlreadyExists(
                "IDEMPOTENCY_KEY_REUSED", "this idempotency key was used for another request", "use a new key"
            )
        return self._vault.open(_purpose(ticket), row["answer"])

    async def save(self, connection: Connection, ticket: Ticket, answer: bytes) -> None:
        """Remembers; `alone` came before."""
        if not ticket.key:
            return
        await connection.execute(
            "INSERT INTO idempotency (workspace, actor, key, request_hash, answer) VALUES ($1, $2, $3, $4, $5)",
            ticket.workspace, ticket.actor, ticket.key, ticket.request_hash,
            self._vault.seal(_purpose(ticket), answer),
        )  # fmt: skip


def _purpose(ticket: Ticket) -> str:
    return f"answer/{ticket.workspace}/{ticket.actor}/{ticket.key}"
