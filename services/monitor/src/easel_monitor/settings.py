"""Settings of the monitor."""

from __future__ import annotations

from pathlib import Path

from easel_kit.settings import ProcessSettings


class MonitorSettings(ProcessSettings, frozen=True, kw_only=True):
    """What the monitor needs beyond every process's settings. Field `x` is EASEL_MONITOR_X or EASEL_X."""

    monitor_sink_addr: str
    """unix:/path or host:port where Envoys send their statistics."""
    events_seed_file: Path | None = None
    """Seed of the read-only NATS user that `easel events token` hands out; None: no such user is set up."""
    events_nats_url: str = ""
    """NATS as outsiders reach it; empty: nats_url."""
    events_inbox_prefix: str = "_INBOX_events"
    """Where that user may receive answers."""
    webhook_key_file: Path | None = None
    """Key that seals webhook secrets in the database; None: <home>/webhook.key, made at the first start."""
    webhook_allow_link_local: bool = False
    """Whether webhooks may call link-local and cloud-metadata addresses."""
    webhook_timeout_s: float = 10.0
    """Longest time a receiver may take to answer."""
