"""Who is calling: access keys of users (hashes, by facts) and tokens of Easel's own processes (hashes, by file)."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from easel_contracts.facts import KeyState


class Keyring:
    """Verifies secrets against hashes; holds no secret that could be used."""

    def __init__(self, peers_file: Path | None) -> None:
        self._peers: dict[str, str] = json.loads(peers_file.read_text()) if peers_file else {}
        self._keys: dict[str, KeyState] = {}

    def replace(self, keys: list[KeyState]) -> None:
        """Takes over what is known of access keys."""
        self._keys.update({key.id: key for key in keys})

    def learn(self, key: KeyState) -> None:
        """Takes over one key's newest state."""
        self._keys[key.id] = key

    def usable(self) -> int:
        """Access keys that are known and not revoked."""
        return sum(not key.revoked for key in self._keys.values())

    def user(self, secret: str) -> str | None:
        """Id of the access key (`ek_<id>_<secret>`), or None where it is not valid."""
        parts = secret.split("_", 2)
        if len(parts) != 3 or parts[0] != "ek":
            return None
        known = self._keys.get(parts[1])
        if known is None or known.revoked or not _same(secret, known.sha256):
            return None
        return known.id

    def process(self, token: str) -> str | None:
        """Name of the process whose token this is, or None."""
        return next((name for name, digest in self._peers.items() if _same(token, digest)), None)


def sha256_hex(secret: str) -> str:
    """The form in which secrets of 256 random bits may be kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _same(secret: str, digest: str) -> bool:
    return hmac.compare_digest(sha256_hex(secret), digest)
