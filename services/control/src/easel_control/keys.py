"""Access keys of users: made once, kept as hashes. The standalone supervisor and migrate call `ensure_access_key`.

A key is `ek_<id>_<256 random bits in base 62>`. Whoever reads the database or the facts cannot use it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from pathlib import Path

from easel_contracts.errors import InvalidInput
from easel_contracts.facts import Cause, Fact, KeyState, raw
from easel_contracts.ids import uuid7
from easel_control.audit import record
from easel_control.vault import write_private
from easel_kit.clock import Clock
from easel_kit.db import Database
from easel_kit.grpc import Caller
from easel_kit.keyring import sha256_hex
from easel_kit.outbox import tell

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 43
"""62^43 > 2^256."""
FORM = re.compile(r"ek_([0-9A-Za-z]{4,32})_[0-9A-Za-z]{40,64}")


def new_key() -> str:
    """A new access key."""
    identity = "".join(secrets.choice(ALPHABET) for _ in range(8))
    return f"ek_{identity}_{_base62(secrets.randbits(256))}"


def _base62(number: int) -> str:
    digits = []
    for _ in range(SECRET_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


async def ensure_access_key(database: Database, key_file: Path, workspace: str = "default") -> str:
    """Makes sure that `key_file` (mode 0600) holds an access key that control knows; returns the key's id.

    `database` is control's own, open. Idempotent: a key that is known already changes nothing, one that the database
    does not know (restored, or written by hand) becomes known. Raises InvalidInput where the file holds something else.
    """
    secret = await asyncio.to_thread(_read_or_make, key_file)
    match = FORM.fullmatch(secret)
    if match is None:
        raise InvalidInput(f"{key_file} does not hold an access key", hint="remove the file; a new key is made then")
    state = KeyState(id=match.group(1), sha256=sha256_hex(secret))
    async with database.transaction() as connection:
        made = await connection.fetchval(
            "INSERT INTO access_keys (id, workspace, sha256) VALUES ($1, $2, $3)"
            " ON CONFLICT (id) DO NOTHING RETURNING id",
            state.id, workspace, state.sha256,
        )  # fmt: skip
        if made:
            await tell(
                connection, database, entity="key", verb="created", key=state.id, generation=1, row_version=1,
                state=state, cause=Cause(actor="easel", reason="KeyCreated", message="an access key was made"),
                workspace=workspace,
            )  # fmt: skip
            who = Caller("easel", "local", uuid7())
            await record(connection, who, workspace, "Keys.Create", f"key/{state.id}", None, {"id": state.id})
    return state.id


def _read_or_make(key_file: Path) -> str:
    if not key_file.exists():
        key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(key_file.with_name(f".{key_file.name}.{os.getpid()}"), new_key().encode() + b"\n", key_file)
    return key_file.read_text().strip()


async def list_keys(database: Database, clock: Clock) -> list[Fact]:
    """The newest fact of every access key, for readers that rebuild."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT id, workspace, sha256, row_version, revoked_at FROM access_keys")
    return [
        Fact(
            id=uuid7(), entity="key", verb="revoked" if r["revoked_at"] else "created", workspace=r["workspace"],
            key=r["id"], epoch=database.epoch, generation=1, row_version=r["row_version"], at=clock.now(),
            cause=Cause(actor="control", reason="Listed"),
            data=raw(KeyState(id=r["id"], sha256=r["sha256"], revoked=r["revoked_at"] is not None)),
        )
        for r in rows
    ]  # fmt: skip
