"""Idempotency keys: the same key with the same request answers the same again, with another request it is refused."""

from __future__ import annotations

import hashlib

import asyncpg
from msgspec import Struct

from easel_contracts.errors import AlreadyExists, InvalidInput
from easel_kit.db import Connection, Stale

MAX_KEY_LENGTH = 200


class Ticket(Struct, frozen=True, kw_only=True):
    """A mutation that may be repeated."""

    workspace: str
    actor: str
    key: str
    """Empty: the request carries none and is not remembered."""
    request_hash: bytes


def ticket(workspace: str, actor: str, key: str, method: str, request: bytes) -> Ticket:
    """The ticket of a request; raises InvalidInput where the key cannot be one."""
    if len(key) > MAX_KEY_LENGTH or "\0" in key:
        raise InvalidInput(f"an idempotency key has at most {MAX_KEY_LENGTH} characters, none of them NUL")
    digest = hashlib.sha256(method.encode() + b"\0" + request).digest()
    return Ticket(workspace=workspace, actor=actor, key=key, request_hash=digest)


async def find(connection: Connection, asked: Ticket) -> bytes | None:
    """What was answered; raises AlreadyExists where the key belongs to another request."""
    if not asked.key:
        return None
    row = await connection.fetchrow(
        "SELECT request_hash, answer FROM idempotency WHERE workspace = $1 AND actor = $2 AND key = $3",
        asked.workspace, asked.actor, asked.key,
    )  # fmt: skip
    if row is None:
        return None
    if row["request_hash"] != asked.request_hash:
        raise AlreadyExists(
            "IDEMPOTENCY_KEY_REUSED", "this idempotency key was used for another request", "use a new key"
        )
    return bytes(row["answer"])


async def save(connection: Connection, asked: Ticket, answer: bytes) -> None:
    """Remembers; raises Stale where the same request was answered at the same time (look again)."""
    if not asked.key:
        return
    try:
        await connection.execute(
            "INSERT INTO idempotency (workspace, actor, key, request_hash, answer) VALUES ($1, $2, $3, $4, $5)",
            asked.workspace, asked.actor, asked.key, asked.request_hash, answer,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Stale("idempotency key") from error
