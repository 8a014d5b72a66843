"""What control listens to: fact → handler. Its durable consumer on the bus is made from LISTENS."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "control"

LISTENS: tuple[Entity, ...] = ("replica", "route", "scale")

HANDLERS: dict[Entity, str] = {
    "replica": "easel_control.handlers.Handlers.on_replica",
    "route": "easel_control.handlers.Handlers.on_route",
    "scale": "easel_control.handlers.Handlers.on_scale",
}
"""Each takes the fact into control's projection and wakes the service's reconcile; deciding is in decide/status.py."""
