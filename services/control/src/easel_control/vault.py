"""Secrets at rest: AES-256-GCM under one master key, a file of mode 0600 in control's home.

Every sealed value is bound to what it is for (`purpose`), so that one cannot be put in another's place. The key never
leaves this process. Losing the file loses tokens and environments: it belongs into the backup, apart from the database.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
VERSION = b"\x01"


class WrongMasterKey(Exception):
    """The master key does not open what is in the database, or its file is not fit for use."""


class Vault:
    """Seals and opens."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._hash_key = hashlib.sha256(b"easel hash key" + key).digest()

    def seal(self, purpose: str, plain: bytes) -> bytes:
        """The value, unreadable."""
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + nonce + self._cipher.encrypt(nonce, plain, purpose.encode())

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """The value; raises WrongMasterKey where key or purpose are others."""
        if sealed[:1] != VERSION:
            raise WrongMasterKey(f"{purpose}: sealed by another version of Easel")
        try:
            return self._cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], purpose.encode())
        except InvalidTag as error:
            raise WrongMasterKey(
                f"{purpose}: the master key does not open it; put the right master.key back"
            ) from error

    def digest(self, data: bytes) -> bytes:
        """A keyed hash: equal for equal data, useless to who has only the database."""
        return hmac.digest(self._hash_key, data, "sha256")


def open_vault(key_file: Path) -> Vault:
    """The vault of a key file; makes the file when it does not exist. Raises WrongMasterKey."""
    if not key_file.exists():
        _make(key_file)
    mode = stat.S_IMODE(key_file.stat().st_mode)
    if mode & 0o077:
        raise WrongMasterKey(f"{key_file} may be read by others (mode {mode:o}); chmod 600 {key_file}")
    key = key_file.read_bytes()
    if len(key) != KEY_BYTES:
        raise WrongMasterKey(f"{key_file} has {len(key)} bytes, not {KEY_BYTES}: put the right one back")
    return Vault(key)


def _make(key_file: Path) -> None:
    """Writes a new key completely or not at all; another process may do the same at the same time."""
    key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(key_file.with_name(f".{key_file.name}.{os.getpid()}"), secrets.token_bytes(KEY_BYTES), key_file)


def write_private(scratch: Path, content: bytes, target: Path) -> None:
    """Writes `content` to `target`, mode 0600, unless it exists by then; through `scratch` in the same directory."""
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(scratch, target)
        except FileExistsError:
            return  # someone else was first; theirs counts
    finally:
        scratch.unlink()
