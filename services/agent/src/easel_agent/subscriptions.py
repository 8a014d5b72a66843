"""What wakes the agent: nothing on the bus. Only the scheduler calls it (see handlers)."""

from __future__ import annotations

from easel_contracts.facts import Entity

CONSUMER = "agent"
LISTENS: tuple[Entity, ...] = ()
