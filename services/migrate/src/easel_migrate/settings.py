"""What `migrate` needs to know; each field is an EASEL_* variable."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of the one step before all."""

    db_dsn: str
    """An administrator's: postgresql://role@host/database; may create roles and schemas."""
    db_password_file: Path | None = None
    passwords_dir: Path | None = None
    """Directory with one file per process that has a schema: the password of its role. None: roles get none."""
    nats_url: str
    nats_seed_file: Path | None = None
    nats_replicas: int = 1
    """Copies of each stream; 3 on a cluster of three."""
    access_key_file: Path | None = None
    """The first access key's text; its hash becomes a key. None: no key is made."""
    wait_s: float = 60.0
    """How long PostgreSQL and NATS may take to answer."""
    restored: bool = False
    """The database was restored from a backup: raise the epoch. Also `--restored`; once, not at every start."""
    workspace: str = "default"
