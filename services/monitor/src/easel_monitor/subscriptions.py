"""What the monitor listens to: the visible table entity → handler."""

from __future__ import annotations

from collections.abc import Mapping

from easel_contracts.facts import Entity
from easel_kit.bus import FactHandler
from easel_monitor.inventory import Inventory

CONSUMER = "monitor"
LISTENS: tuple[Entity, ...] = ("service", "replica")


def table(inventory: Inventory) -> Mapping[Entity, FactHandler]:
    """Entity → handler."""
    return {
        "service": inventory.on_service,
        "replica": inventory.on_replica,
    }
