"""Control's settings: what every process has, and limits of what it keeps."""

from __future__ import annotations

from easel_kit.settings import ProcessSettings


class Settings(ProcessSettings, frozen=True, kw_only=True):
    """Settings of control."""

    code_max_mib: int = 256
    """Largest uploaded archive."""
    code_keep_h: float = 24.0
    """Hours an archive that no revision names is kept."""
    idempotency_keep_h: float = 24.0
    """Hours the answer to an idempotency key is remembered."""
