"""What the autoscaler needs to know: nothing beyond what every process does."""

from __future__ import annotations

from easel_kit.settings import ProcessSettings


class Settings(ProcessSettings, frozen=True, kw_only=True):
    """The autoscaler's settings."""
