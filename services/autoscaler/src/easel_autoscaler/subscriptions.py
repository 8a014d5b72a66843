"""What the autoscaler listens to: fact → handler. Its durable consumer on the bus is made from this table."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "autoscaler"

HANDLERS: dict[Entity, str] = {
    "service": "easel_autoscaler.handlers.Scaler.on_service",
}
"""Beside facts it reads `easel.metric.*.service.>` (core NATS): `easel_autoscaler.handlers.Scaler.on_metrics`."""

LISTENS: tuple[Entity, ...] = tuple(HANDLERS)
