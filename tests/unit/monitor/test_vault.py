"""Webhook secrets at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_monitor.vault import Unsealable, open_vault


def test_a_secret_opens_only_with_its_key_and_place(tmp_path: Path) -> None:
    """The same key file opens it, also later; another key, or another webhook's row, does not."""
    file = tmp_path / "webhook.key"
    sealed = open_vault(file).seal("whsec_abc", "id-1")

    assert open_vault(file).open(sealed, "id-1") == "whsec_abc"
    assert b"whsec_abc" not in sealed
    with pytest.raises(Unsealable):
        open_vault(file).open(sealed, "id-2")
    with pytest.raises(Unsealable):
        open_vault(tmp_path / "other.key").open(sealed, "id-1")


def test_the_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    """0600, whatever the umask."""
    open_vault(tmp_path / "webhook.key")

    assert (tmp_path / "webhook.key").stat().st_mode & 0o777 == 0o600
