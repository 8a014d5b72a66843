"""What the router needs to know beyond what every process does."""

from __future__ import annotations

from easel_kit.settings import ProcessSettings


class Settings(ProcessSettings, frozen=True, kw_only=True):
    """The router's settings."""

    router_xds_addr: str
    """Where Envoys connect: unix:/path or host:port."""
    router_shadow_addr: str = ""
    """Where Envoys send copies of requests whose answers are compared: unix:/path or host:port; empty: nowhere."""
    networks: str = ""
    """Networks that Envoy is in, best first, separated by commas; empty: any address of a replica will do."""
    envoy_grace_s: float = 15.0
    """How long a lost Envoy is waited for before the others decide alone."""
    apply_timeout_s: float = 20.0
    """Longest time for one acknowledgement round; then it is tried again."""
