"""Tells those who wait inside this process that a service's replicas changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Changes:
    """A wake-up per service; it carries nothing: whoever wakes reads the state."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def tell(self, service: str) -> None:
        """Wakes everyone who follows the service."""
        for event in self._waiting.get(service, ()):
            event.set()

    @contextmanager
    def follow(self, service: str) -> Iterator[asyncio.Event]:
        """An event that is set at each change; the follower clears it."""
        event = asyncio.Event()
        self._waiting.setdefault(service, set()).add(event)
        try:
            yield event
        finally:
            followers = self._waiting[service]
            followers.discard(event)
            if not followers:
                del self._waiting[service]
