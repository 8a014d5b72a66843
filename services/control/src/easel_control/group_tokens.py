"""The token `default` of groups, which is in their rows: made, sealed, opened."""

from __future__ import annotations

from easel_control.admission import generated_token
from easel_control.model import GroupRow
from easel_control.vault import Vault


class GroupTokens:
    """Seals and opens."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def made(self, workspace: str, name: str) -> bytes:
        """A new token for a group, sealed."""
        return self.sealed(workspace, name, generated_token())

    def sealed(self, workspace: str, name: str, token: str) -> bytes:
        """A token as the row keeps it."""
        return self._vault.seal(f"group-token/{workspace}/{name}", token.encode())

    def of(self, row: GroupRow) -> str:
        """The group's token."""
        return self._vault.open(f"group-token/{row.workspace}/{row.name}", row.token_sealed).decode()
