"""Secrets of a revision: sealed at rest, opened only for the agent. Those that it names are files under `secrets/`.

A secret is the file EASEL_HOME/secrets/NAME (of control's home), mode 0600, its content without a last newline. It is
read when a replica starts, so a restart picks up a changed secret; no API writes or shows one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from easel_contracts.errors import FieldError, Refused
from easel_control.decide.secrets import EnvValue, GitLogin, RevisionSecrets
from easel_control.vault import Vault


class Opened(Struct, frozen=True, kw_only=True):
    """A revision's secrets with nothing left to look up: for its agent alone."""

    env: dict[str, str]
    sidecars: tuple[dict[str, str], ...]
    logins: dict[int, GitLogin]

    def __repr__(self) -> str:
        return "Opened(…)"


class Environments:
    """Seals and resolves."""

    def __init__(self, vault: Vault, secrets_dir: Path) -> None:
        self._vault, self._secrets_dir = vault, secrets_dir

    def seal(self, workspace: str, name: str, number: int, secrets: RevisionSecrets) -> bytes:
        """The secrets of a revision as they are stored."""
        return self._vault.seal(_purpose(workspace, name, number), _packed(secrets))

    def stored(self, workspace: str, name: str, number: int, sealed: bytes) -> RevisionSecrets:
        """The secrets of a revision, as `seal` got them."""
        return _unpacked(self._vault.open(_purpose(workspace, name, number), sealed))

    def resolve(self, workspace: str, name: str, number: int, sealed: bytes) -> Opened:
        """The same with the files of secrets read now. Raises Refused where one is missing."""
        secrets = self.stored(workspace, name, number, sealed)
        env, *sidecars = ({e.name: self._value(e) for e in env} for env in secrets.containers)
        return Opened(env=env, sidecars=tuple(sidecars), logins=secrets.logins)

    def missing(self, secrets: RevisionSecrets) -> tuple[FieldError, ...]:
        """Secrets that environments name and that cannot be read."""
        found = []
        for container, env in enumerate(secrets.containers):
            for i, entry in enumerate(env):
                problem = self._problem(entry.secret) if entry.secret else ""
                if problem:
                    path = f"containers[{container}].env[{i}].secretRef.name"
                    hint = f"write it to secrets/{entry.secret} in control's home, mode 0600"
                    found.append(FieldError(path=path, code="NOT_FOUND", message=problem, hint=hint))
        return tuple(found)

    def _value(self, entry: EnvValue) -> str:
        if entry.secret is not None:
            return self._secret(entry.secret)
        assert entry.value is not None
        return entry.value

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


class _Stored(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored form of everything beyond one environment."""

    env: tuple[dict[str, str], ...] = ()
    sidecars: tuple[tuple[dict[str, str], ...], ...] = ()
    logins: dict[int, GitLogin] = {}


_stored = msgspec.json.Decoder(tuple[dict[str, str], ...] | _Stored)


def _packed(secrets: RevisionSecrets) -> bytes:
    """One environment alone is stored as the list it always was, which versions before images read too."""
    env = _plain(secrets.env)
    if not secrets.sidecars and not secrets.logins:
        return msgspec.json.encode(env)
    sidecars = tuple(_plain(sidecar) for sidecar in secrets.sidecars)
    return msgspec.json.encode(_Stored(env=env, sidecars=sidecars, logins=secrets.logins))


def _unpacked(data: bytes) -> RevisionSecrets:
    found = _stored.decode(data)
    if not isinstance(found, _Stored):
        return RevisionSecrets(env=_values(found))
    return RevisionSecrets(
        env=_values(found.env), sidecars=tuple(_values(sidecar) for sidecar in found.sidecars), logins=found.logins
    )


def _plain(env: tuple[EnvValue, ...]) -> tuple[dict[str, str], ...]:
    """Each as {"name": …} with its "value" or "secret"."""
    given = ({"name": e.name, "value": e.value, "secret": e.secret} for e in env)
    return tuple({key: text for key, text in entry.items() if text is not None} for entry in given)


def _values(env: Iterable[dict[str, str]]) -> tuple[EnvValue, ...]:
    return tuple(EnvValue(name=e["name"], value=e.get("value"), secret=e.get("secret")) for e in env)


def _purpose(workspace: str, name: str, number: int) -> str:
    return f"env/{workspace}/{name}/{number}"
