"""The platform's secrets: made once, each readable by its owner only.

Decides names and lengths. Never prints or logs a secret, and never replaces one that exists.
The access key is not made here: migrate makes it with control's function, which knows its form.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path

import nkeys

from easel_migrate.processes import PROCESSES, WITH_SCHEMA
from easel_migrate.secret_files import write_file

NATS_USERS = (*PROCESSES, "migrate", "events")
PEERS = (*PROCESSES, "envoy")
"""Who may present a process token."""
ROLES = WITH_SCHEMA
"""Processes with a role of their own in PostgreSQL."""


class Keys:
    """Where each secret lies below a directory, and making the missing ones."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.peers_file = directory / "peers.json"
        self.passwords = directory / "passwords"
        """Directory of the database passwords, one file per role."""
        self.admin_password = self.passwords / "admin"

    def seed(self, user: str) -> Path:
        """File of a NATS user's nkey seed."""
        return self._directory / f"{user}.nk"

    def token(self, process: str) -> Path:
        """File of a process's token."""
        return self._directory / f"{process}.token"

    def password(self, role: str) -> Path:
        """File of a database role's password."""
        return self.passwords / role

    def ensure(self) -> None:
        """Makes every secret that does not exist yet, and writes whom to believe."""
        self.passwords.mkdir(mode=0o700, exist_ok=True)
        for user in NATS_USERS:
            _once(self.seed(user), _new_seed)
        for process in PEERS:
            _once(self.token(process), _new_secret)
        for role in (*ROLES, "admin"):
            _once(self.password(role), _new_secret)
        peers = {process: hashlib.sha256(self.process_token(process).encode()).hexdigest() for process in PEERS}
        write_file(self.peers_file, json.dumps(peers, indent=1).encode())

    def nats_public(self, user: str) -> str:
        """A NATS user's public key."""
        pair = nkeys.from_seed(bytearray(self.seed(user).read_bytes().strip()))
        return str(pair.public_key.decode())

    def process_token(self, process: str) -> str:
        """A process's token, for a configuration that needs its text (Envoy's)."""
        return self.token(process).read_text().strip()


def _once(path: Path, make: Callable[[], str]) -> None:
    if not path.exists():
        write_file(path, make().encode())


def _new_secret() -> str:
    """256 random bits as text."""
    return secrets.token_urlsafe(32)


def _new_seed() -> str:
    """A fresh nkey user seed (format: NATS ADR-1)."""
    return str(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode())
