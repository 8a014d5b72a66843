"""What the scheduler listens to, and who handles it."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "scheduler"

LISTENS: tuple[Entity, ...] = ("service", "scale", "route", "traffic")

HANDLERS: dict[Entity, str] = {
    "service": "handlers.Handlers.on_service",
    "scale": "handlers.Handlers.on_scale",
    "route": "handlers.Handlers.on_route",
    "traffic": "handlers.Handlers.on_traffic",
}
"""Entity → handler, for the reader; app.py wires them."""
