"""The secrets that belong to a revision: environment values of its containers, logins of its git repositories."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class EnvValue(Struct, frozen=True, kw_only=True):
    """One environment variable: a value, or the name of a secret."""

    name: str
    value: str | None = None
    secret: str | None = None

    def __repr__(self) -> str:
        return f"EnvValue({self.name!r}, …)"


class GitLogin(Struct, frozen=True, kw_only=True):
    """For one repository."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "GitLogin(…)"


class RevisionSecrets(Struct, frozen=True, kw_only=True):
    """Never to be logged, told or shown."""

    env: tuple[EnvValue, ...] = ()
    """Of `containers[0]`."""
    sidecars: tuple[tuple[EnvValue, ...], ...] = ()
    """Of `containers[1]` and on: one for each, also where it has none."""
    logins: dict[int, GitLogin] = {}
    """Place in `storage` → login of its git repository."""

    def __repr__(self) -> str:
        return "RevisionSecrets(…)"

    @property
    def containers(self) -> tuple[tuple[EnvValue, ...], ...]:
        """Environments by the place of their container."""
        return (self.env, *self.sidecars)


def secrets_of(config: dict[str, Any]) -> RevisionSecrets:
    """The secrets in a sound configuration."""
    env, *sidecars = (tuple(_env_value(e) for e in c.get("env", ())) for c in config["containers"])
    return RevisionSecrets(
        env=env,
        sidecars=tuple(sidecars),
        logins={
            i: GitLogin(username=entry["git"]["username"], password=entry["git"]["password"])
            for i, entry in enumerate(config.get("storage", ()))
            if "password" in entry.get("git", {})
        },
    )


def _env_value(entry: dict[str, Any]) -> EnvValue:
    secret = entry["secretRef"]["name"] if "secretRef" in entry else None
    return EnvValue(name=entry["name"], value=entry.get("value"), secret=secret)
