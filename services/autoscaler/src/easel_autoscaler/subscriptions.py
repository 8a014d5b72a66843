"""What the autoscaler listens to: fact → handler. Its durable consumer on the bus is made from this table."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "autoscaler"

HANDLERS: dict[Entity, str] = {
    "service": "easel_autoscaler.handlers.Scaler.on_service",
}
"""Beside facts it reads core NATS: `easel.metric.*.service.>` (`easel_autoscaler.handlers.Scaler.on_metrics`) and
`easel.metric.*.hold.>` (`easel_autoscaler.handlers.Scaler.on_hold`)."""

LISTENS: tuple[Entity, ...] = tuple(HANDLERS)
