"""Gathers what easel.v1.Events.Explain tells: the streams' bounds and what each webhook has yet to get."""

from __future__ import annotations

from easel_contracts.errors import Unavailable
from easel_kit.clock import Clock
from easel_monitor.decide.explain_events import Bounds, EventsKnown, HookView
from easel_monitor.factlog import FactLog
from easel_monitor.model import Webhook
from easel_monitor.store import Webhooks


async def gather(
    workspace: str, facts: FactLog, dead: FactLog, dead_subject: str, store: Webhooks, clock: Clock
) -> EventsKnown:
    """One look at everything; a stream that does not answer is said to be away."""
    hooks = await store.all(workspace)
    try:
        dead_bounds = Bounds(*await dead.bounds())
        newest = await dead.last(dead_subject)
        views = [await _view(facts, hook) for hook in hooks]
        return EventsKnown(
            facts=Bounds(*await facts.bounds()), dead=dead_bounds,
            newest_dead=f"{newest.subject}: {newest.error}" if newest else "", webhooks=tuple(views), now=clock.now(),
        )  # fmt: skip
    except Unavailable as error:
        return EventsKnown(facts=None, dead=None, away=error.message, now=clock.now())


async def _view(facts: FactLog, hook: Webhook) -> HookView:
    due = await facts.read(hook.delivered_sequence + 1, hook.filter.subject, 1)
    return HookView(
        id=hook.id, failures=hook.failures, last_error=hook.last_error, lost=hook.lost,
        next_sequence=due[0].sequence if due else None, next_at=due[0].at if due else None,
    )  # fmt: skip
