"""The platform's secrets: private, made once, told to others as hashes only."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

from easel_migrate.keys import PEERS, Keys


def test_every_secret_is_private(tmp_path: Path) -> None:
    """Each file is 0600."""
    Keys(tmp_path).ensure()

    files = [path for path in tmp_path.rglob("*") if path.is_file()]

    assert len(files) > 15
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """A second start keeps every secret."""
    Keys(tmp_path).ensure()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    Keys(tmp_path).ensure()

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_peers_are_known_by_hash(tmp_path: Path) -> None:
    """Whoever reads the peers' file can check a token but not use one."""
    keys = Keys(tmp_path)
    keys.ensure()

    peers = json.loads(keys.peers_file.read_text())

    assert set(peers) == set(PEERS)
    for process, digest in peers.items():
        assert digest == hashlib.sha256(keys.process_token(process).encode()).hexdigest()
