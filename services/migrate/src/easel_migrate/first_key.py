"""The first access key, made by control's own function as control's own role; its text lies in a file of the user's.

Never sends the key anywhere but into that file (0600); the database gets its hash.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from easel_kit.db import Database
from easel_kit.settings import secret
from easel_migrate.database import Admin
from easel_migrate.processes import role
from easel_migrate.settings import Settings


async def is_known(connection: Admin, key_file: Path) -> bool:
    """Whether the file exists and control knows its key: the usual case, answered without loading control's code."""
    try:
        digest = hashlib.sha256(key_file.read_text().strip().encode()).hexdigest()
    except FileNotFoundError:
        return False
    return bool(await connection.fetchval("SELECT 1 FROM control.access_keys WHERE sha256 = $1", digest))


async def ensure(settings: Settings, key_file: Path) -> str:
    """Makes the key, or makes an existing file's key known; the key's id."""
    # Loaded here, since it brings the bus and gRPC with it: a second that later starts do not pay.
    keys = import_module("easel_control.keys")
    database = Database(_as_control(settings), "control", _password(settings))
    await database.open(max_size=1)
    try:
        return str(await keys.ensure_access_key(database, key_file, settings.workspace))
    finally:
        await database.close()


def _as_control(settings: Settings) -> str:
    """The administrator's DSN with control's role, so that what is written belongs to the role that reads it."""
    if settings.passwords_dir is None:
        return settings.db_dsn
    parts = urlsplit(settings.db_dsn)
    return urlunsplit(parts._replace(netloc=f"{role('control')}@{parts.netloc.rpartition('@')[2]}"))


def _password(settings: Settings) -> str | None:
    if settings.passwords_dir is None:
        return secret(settings.db_password_file)
    return secret(settings.passwords_dir / "control")
