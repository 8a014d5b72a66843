"""Environment values of a revision: sealed at rest, opened only for the agent. Secrets are files under `secrets/`.

A secret is the file EASEL_HOME/secrets/NAME (of control's home), mode 0600, its content without a last newline. It is
read when a replica starts, so a restart picks up a changed secret; no API writes or shows one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import msgspec

from easel_contracts.errors import FieldError, Refused
from easel_control.decide.admit import EnvValue
from easel_control.vault import Vault


class Environments:
    """Seals and resolves."""

    def __init__(self, vault: Vault, secrets_dir: Path) -> None:
        self._vault, self._secrets_dir = vault, secrets_dir

    def seal(self, workspace: str, name: str, number: int, env: tuple[EnvValue, ...]) -> bytes:
        """The environment of a revision as it is stored."""
        return self._vault.seal(_purpose(workspace, name, number), msgspec.json.encode([_plain(e) for e in env]))

    def same(self, workspace: str, name: str, number: int, sealed: bytes, env: tuple[EnvValue, ...]) -> bool:
        """Whether a revision's stored environment is `env`."""
        stored: list[dict[str, Any]] = msgspec.json.decode(self._vault.open(_purpose(workspace, name, number), sealed))
        return stored == [_plain(e) for e in env]

    def stored(self, workspace: str, name: str, number: int, sealed: bytes) -> dict[str, dict[str, Any]]:
        """Name → {"value": …} or {"secret": name}, as a revision has them."""
        found: list[dict[str, Any]] = msgspec.json.decode(self._vault.open(_purpose(workspace, name, number), sealed))
        return {entry["name"]: {k: v for k, v in entry.items() if k != "name"} for entry in found}

    def resolve(self, workspace: str, name: str, number: int, sealed: bytes) -> dict[str, str]:
        """Name → value, secrets read now. Raises Refused where a secret is missing."""
        stored = self.stored(workspace, name, number, sealed)
        return {n: e["value"] if "value" in e else self._secret(e["secret"]) for n, e in stored.items()}

    def missing(self, env: tuple[EnvValue, ...]) -> tuple[FieldError, ...]:
        """Secrets that an environment names and that cannot be read."""
        found = []
        for i, entry in enumerate(env):
            problem = self._problem(entry.secret) if entry.secret else ""
            if problem:
                path = f"containers[0].env[{i}].secretRef.name"
                hint = f"write it to secrets/{entry.secret} in control's home, mode 0600"
                found.append(FieldError(path=path, code="NOT_FOUND", message=problem, hint=hint))
        return tuple(found)

    def _problem(self, secret: str) -> str:
        path = self._secrets_dir / secret
        if not os.path.isfile(path):  # false, not an error, where the directory cannot be entered
            return f"there is no secret {secret}"
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            return f"the file of secret {secret} may be read by others; chmod 600 it"
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError):
            return f"the file of secret {secret} cannot be read as text"
        return f"secret {secret} holds a NUL character" if "\0" in text else ""

    def _secret(self, secret: str) -> str:
        if problem := self._problem(secret):
            raise Refused("SECRET_MISSING", problem, f"write it to secrets/{secret} in control's home, mode 0600")
        return (self._secrets_dir / secret).read_text().removesuffix("\n")


def _plain(entry: EnvValue) -> dict[str, str]:
    if entry.secret is not None:
        return {"name": entry.name, "secret": entry.secret}
    assert entry.value is not None
    return {"name": entry.name, "value": entry.value}


def _purpose(workspace: str, name: str, number: int) -> str:
    return f"env/{workspace}/{name}/{number}"
