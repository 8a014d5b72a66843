"""What the router listens to: fact → handler. Its durable consumer on the bus is made from this table."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "router"

HANDLERS: dict[Entity, str] = {
    "service": "easel_router.handlers.World.on_service",
    "replica": "easel_router.handlers.World.on_replica",
    "group": "easel_router.handlers.World.on_group",
}

LISTENS: tuple[Entity, ...] = tuple(HANDLERS)
