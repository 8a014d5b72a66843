"""What the event streams hold and what is behind, in sentences. Pure; never says more than the streams do."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from easel_monitor.decide.explain import Line


class Bounds(Struct, frozen=True):
    """A stream's oldest and newest sequence; newest below oldest: it is empty."""

    oldest: int
    newest: int

    @property
    def count(self) -> int:
        """Messages between the two, those dropped in between counted too."""
        return max(0, self.newest - self.oldest + 1) if self.newest else 0


class HookView(Struct, frozen=True, kw_only=True):
    """One webhook and the oldest fact it has yet to get; None: it is up to date."""

    id: str
    failures: int
    last_error: str
    lost: str
    next_sequence: int | None = None
    next_at: datetime | None = None


class EventsKnown(Struct, frozen=True, kw_only=True):
    """All that the explanation rests on. None: that stream does not answer, and `away` says why."""

    facts: Bounds | None
    dead: Bounds | None
    newest_dead: str = ""
    """Subject and error of the newest dead letter."""
    away: str = ""
    webhooks: tuple[HookView, ...] = ()
    now: datetime


def explain(known: EventsKnown) -> list[Line]:
    """The streams first, then the webhooks that are behind, then how many are not."""
    lines = [_facts(known), _dead(known)]
    late = [hook for hook in known.webhooks if hook.next_sequence is not None]
    for hook in late:
        lines.append(_late(hook, known.now))
    lines += [Line("FactsLost", f"webhook {hook.id}: {hook.lost}") for hook in known.webhooks if hook.lost]
    if known.facts is None:
        return lines
    lines.append(
        Line("Webhooks", f"{len(known.webhooks)} webhooks, {len(known.webhooks) - len(late)} of them up to date")
    )
    return lines


def _facts(known: EventsKnown) -> Line:
    found = known.facts
    if found is None:
        return Line("StreamAway", known.away, "see with `easel status` whether NATS runs")
    if not found.count:
        return Line("NoFacts", f"the stream holds no fact; the next one gets sequence {found.newest + 1}")
    message = f"the stream holds facts {found.oldest} to {found.newest}; a watcher resumes with its last sequence + 1"
    return Line("Facts", message, "" if found.oldest == 1 else f"what came before {found.oldest} has expired")


def _dead(known: EventsKnown) -> Line:
    found = known.dead
    if found is None:
        return Line("StreamAway", known.away, "see with `easel status` whether NATS runs")
    if not found.count:
        return Line("NoDeadLetters", "no fact was given up")
    return Line("DeadLetters", f"{found.count} facts were given up by a process; the newest: {known.newest_dead}",
                "`easel events --dead` shows them")  # fmt: skip


def _late(hook: HookView, now: datetime) -> Line:
    age = f", {(now - hook.next_at).total_seconds():.0f} s old" if hook.next_at else ""
    message = f"webhook {hook.id} has yet to get fact {hook.next_sequence}{age}"
    if not hook.failures:
        return Line("WebhookBehind", message)
    return Line("WebhookFailing", f"{message}; {hook.failures} tries in a row failed: {hook.last_error}",
                "it is tried again for as long as the facts are kept")  # fmt: skip
