"""What this copy of the autoscaler knows in memory: services, their decisions in force, their recommendations.

A cache of rows and projections plus the tracks; all of it may be lost at any time and costs only patience then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from easel_autoscaler.decide.decision import Current, Decision, Held, decide
from easel_autoscaler.decide.recommend import Recommendation, recommend
from easel_autoscaler.decide.track import Track, after_change, remember
from easel_autoscaler.windows import Windows
from easel_contracts.facts import ServiceState


@dataclass
class Entry:
    """One service."""

    state: ServiceState
    current: Current | None = None
    track: Track = field(default_factory=Track)
    asked: Recommendation | None = None
    """What the load asked for at the last tick; None: not known."""


class Fleet:
    """All services this copy has heard of."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self._entries: dict[str, Entry] = {}

    def see(self, state: ServiceState, current: Current | None) -> Entry:
        """Takes over what was just read from the database."""
        entry = self._entries.get(state.name)
        if entry is None:
            entry = self._entries[state.name] = Entry(state, current)
            return entry
        entry.track = after_change(entry.track, entry.state, state)
        if not entry.track.spans:
            entry.asked = None
        entry.state, entry.current = state, current
        return entry

    def forget(self, name: str) -> None:
        """A service that is gone."""
        self._entries.pop(name, None)

    def get(self, name: str) -> Entry | None:
        """What is known of a service."""
        return self._entries.get(name)

    def scaled(self) -> Iterator[Entry]:
        """Services whose number of replicas follows their load."""
        return (e for e in self._entries.values() if e.state.autoscaling and e.state.wanted == "running" and e.current)

    def observe(self, entry: Entry, now_s: float) -> Decision | Held:
        """Takes the load of this moment into the entry's track and says what that would mean."""
        policy, current = entry.state.autoscaling, entry.current
        assert policy is not None
        assert current is not None
        load = self.windows.load(entry.state.name, now_s)
        entry.asked = recommend(policy, current.wanted, load) if load else None
        if entry.asked:
            longest_s = max(policy.scale_up_window_s, policy.scale_down_window_s)
            entry.track = remember(entry.track, entry.asked.wants, now_s, longest_s)
        return verdict(entry, now_s)

    def decided(self, entry: Entry, current: Current, decision: Decision, now_s: float) -> None:
        """A decision was stored."""
        entry.current = current
        if decision.wanted < decision.before:
            entry.track = replace(entry.track, decreased_s=now_s)


def verdict(entry: Entry, now_s: float) -> Decision | Held:
    """What is to be done about a service now."""
    return decide(entry.state, entry.current, entry.asked, entry.track, now_s)
