"""Settings from the environment and a TOML file into one frozen struct, all errors at once.

Field `nats_url` of the process `router` is looked for as EASEL_ROUTER_NATS_URL, then EASEL_NATS_URL, then in the
TOML file (EASEL_CONFIG_FILE) as `[router] nats_url`, then as a top-level `nats_url`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct


class SettingsError(Exception):
    """One or more settings are wrong; `problems` says which, what was found and what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("settings are wrong:\n  " + "\n  ".join(problems))
        self.problems = problems


class ProcessSettings(Struct, frozen=True, kw_only=True):
    """What every process needs to know."""

    home: Path
    """Directory for what this process keeps on disk."""
    nats_url: str
    nats_seed_file: Path | None = None
    """This process's nkey seed."""
    db_dsn: str = ""
    """postgresql://role@host/database; empty: the process has no database (the agent)."""
    db_password_file: Path | None = None
    process_token_file: Path | None = None
    """Secret by which this process is known to the others' internal APIs."""
    peers_file: Path | None = None
    """JSON {process: SHA-256 hex of its token}: whom to believe."""
    health_addr: str = ""
    """unix:/path or host:port of /live, /ready and /metrics; empty: not served."""
    control_addr: str = ""
    scheduler_addr: str = ""
    agent_addr: str = ""
    autoscaler_addr: str = ""
    router_addr: str = ""
    monitor_addr: str = ""
    workspace: str = "default"
    data_url: str = "http://127.0.0.1:8080"
    """Where calls of services go, as users see it."""
    web_url: str = ""
    """Where web applications are, without the label that names one; empty: they are reached by path alone."""
    mode: str = "standalone"
    host_id: str = ""
    """Machine whose local paths replicas can see; empty: none."""
    holder: str = ""
    """Where this copy lives, the same after a restart: what a dead copy at the same place held passes on at once
    instead of running out. Empty: host and `home`."""
    log_level: str = "info"
    otlp_endpoint: str = ""
    """OTLP/gRPC collector for traces, e.g. http://127.0.0.1:4317; empty: traces are not exported."""
    graceful_stop_s: float = 10.0
    """Longest time from SIGTERM to the end of running calls."""

    def addr(self, process: str) -> str:
        """gRPC address of a process."""
        found = getattr(self, f"{process}_addr", "")
        if not found:
            raise SettingsError([f"EASEL_{process.upper()}_ADDR is missing: unix:/path or host:port"])
        return str(found)


S = TypeVar("S", bound=Struct)


def load(kind: type[S], process: str = "", *, env: Mapping[str, str] | None = None, file: Path | None = None) -> S:
    """Settings of `process`. Raises SettingsError listing everything that is wrong."""
    env = os.environ if env is None else env
    table = _toml(file or (Path(env["EASEL_CONFIG_FILE"]) if env.get("EASEL_CONFIG_FILE") else None))
    own = table.get(process, {}) if process else {}
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field in msgspec.structs.fields(kind):
        name = f"EASEL_{field.name.upper()}"
        first = f"EASEL_{process.upper()}_{field.name.upper()}" if process else name
        found: Any = env.get(first, env.get(name, own.get(field.name, table.get(field.name))))
        if found is None:
            if field.required:
                problems.append(f"{name} is missing ({_type_name(field.type)})")
            continue
        try:
            values[field.name] = msgspec.convert(found, field.type, strict=False, dec_hook=_decode)
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{name}={found!r}: {error}; expected {_type_name(field.type)}")
    if problems:
        raise SettingsError(problems)
    return kind(**values)


def secret(file: Path | None) -> str | None:
    """The content of a secret's file, without the line's end."""
    return file.read_text().strip() if file else None


def _decode(kind: type[Any], value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _toml(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError([f"{file}: {error}"]) from error
