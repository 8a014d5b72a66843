"""What the events' explanation says: streams, dead letters, webhooks that are behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from easel_monitor.decide.explain import Line
from easel_monitor.decide.explain_events import Bounds, EventsKnown, HookView, explain

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def of(lines: list[Line]) -> dict[str, Line]:
    return {line.code: line for line in lines}


def test_empty_streams_are_said_to_be_empty() -> None:
    found = of(explain(EventsKnown(facts=Bounds(1, 0), dead=Bounds(1, 0), now=NOW)))

    assert set(found) == {"NoFacts", "NoDeadLetters", "Webhooks"}
    assert "sequence 1" in found["NoFacts"].message


def test_a_silent_stream_is_not_an_empty_one() -> None:
    found = explain(EventsKnown(facts=None, dead=None, away="stream FACTS does not answer", now=NOW))

    assert {line.code for line in found} == {"StreamAway"}
    assert found[0].message == "stream FACTS does not answer"


def test_webhooks_that_are_behind_say_since_when_and_why() -> None:
    hook = HookView(id="w1", failures=3, last_error="answered 500", lost="", next_sequence=41,
                    next_at=NOW - timedelta(seconds=90))  # fmt: skip
    fine = HookView(id="w2", failures=0, last_error="", lost="facts 2 to 3 expired")
    known = EventsKnown(facts=Bounds(5, 50), dead=Bounds(1, 2), newest_dead="easel.fact.x: bad", webhooks=(hook, fine),
                        now=NOW)  # fmt: skip
    found = of(explain(known))

    assert "facts 5 to 50" in found["Facts"].message
    assert "2 facts were given up" in found["DeadLetters"].message
    assert "fact 41, 90 s old; 3 tries in a row failed: answered 500" in found["WebhookFailing"].message
    assert "w2: facts 2 to 3 expired" in found["FactsLost"].message
    assert "1 of them up to date" in found["Webhooks"].message
