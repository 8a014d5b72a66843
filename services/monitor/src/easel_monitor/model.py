"""Rows of the monitor's own schema."""

from __future__ import annotations

from msgspec import Struct

from easel_monitor.decide.events import Filter


class Webhook(Struct, frozen=True, kw_only=True):
    """A subscription by HTTP. The secret is sealed (vault.py); whoever loads the row cannot read it."""

    id: str
    workspace: str
    url: str
    entity: str
    key: str
    secret_sealed: bytes
    delivered_sequence: int
    """Every matching fact up to it was accepted by the receiver."""
    failures: int
    """Tries in a row that failed."""
    last_error: str
    """Why the last try failed; empty after a success."""
    lost: str
    """Which facts the stream no longer had when their turn came; stays until the webhook is deleted."""
    row_version: int

    @property
    def filter(self) -> Filter:
        """Which facts it wants."""
        return Filter(workspace=self.workspace, entity=self.entity, key=self.key)


class ArmSecond(Struct, frozen=True, kw_only=True):
    """What one arm of one canary answered in one second."""

    subject: str
    unix_s: int
    arm: str
    requests: int
    errors: int
    bins: dict[int, int]
