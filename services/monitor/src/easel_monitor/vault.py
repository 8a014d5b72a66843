"""Seals webhook secrets, so that a copy of the database alone signs nothing. The key lies in a file, 0600."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class Unsealable(Exception):
    """The secret was sealed with another key: the key file was lost or replaced."""


class Vault:
    """AES-256-GCM with a key of this platform's own; `context` (the webhook's id) is authenticated with it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, secret: str, context: str) -> bytes:
        """The secret as it may be stored."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """The secret; raises Unsealable."""
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except InvalidTag as error:
            raise Unsealable(context) from error
        return plain.decode()


def open_vault(key_file: Path) -> Vault:
    """The vault of a key file; makes the file, readable by its owner only, where there is none."""
    try:
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return Vault(bytes.fromhex(key_file.read_text().strip()))
    key = AESGCM.generate_key(256)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex())
        file.flush()
        os.fsync(file.fileno())
    return Vault(key)
