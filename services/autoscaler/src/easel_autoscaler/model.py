"""What this copy of the autoscaler knows in memory: services, their decisions in force, their recommendations.

A cache of rows and projections plus the tracks; all of it may be lost at any time and costs only patience then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from easel_autoscaler.decide.decision import Current, Decision, Held, decide
from easel_autoscaler.decide.load import Load
from easel_autoscaler.decide.recommend import Recommendation, recommend
from easel_autoscaler.decide.track import Track, after_change, listen, remember
from easel_autoscaler.windows import Windows
from easel_contracts.facts import ServiceState


@dataclass
class Entry:
    """One service."""

    state: ServiceState
    current: Current | None = None
    track: Track = field(default_factory=Track)
    asked: Recommendation | None = None
    """What the load asked for at the last look; None: not known."""
    started_s: float | None = None
    """When a start from zero was decided whose first ready replica was not seen yet."""
    start_s: float | None = None
    """How long the last start of this revision from zero took, to about a second; None: not seen."""


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
        if entry.state.uid != state.uid:
            self.windows.forget(state.name)
        entry.track = after_change(entry.track, entry.state, state)
        if not entry.track.spans:
            entry.asked = None
        if entry.state.revision.number != state.revision.number:
            entry.start_s = None
        entry.state, entry.current = state, current
        return entry

    def forget(self, name: str) -> None:
        """A service that is gone, with what was heard of it: the next one of its name is another.

        Of one that was never known something may be heard before it is: that stays.
        """
        if self._entries.pop(name, None) is not None:
            self.windows.forget(name)

    def get(self, name: str) -> Entry | None:
        """What is known of a service."""
        return self._entries.get(name)

    def scaled(self) -> Iterator[Entry]:
        """Services whose number of replicas follows their load."""
        return (e for e in self._entries.values() if e.state.autoscaling and e.state.wanted == "running" and e.current)

    def observe(self, entry: Entry, now_s: float) -> Decision | Held:
        """Takes the load of this moment into the entry's track and says what that would mean."""
        policy, current = entry.state.autoscaling, entry.current
        load = self.windows.load(entry.state.name, now_s)
        entry.asked = recommend(policy, current.wanted, load) if policy and current and load else None
        if load:
            entry.track = listen(entry.track, load)
            _learn_start(entry, load)
        if policy and entry.asked:
            longest_s = max(policy.scale_up_window_s, policy.scale_down_window_s)
            entry.track = remember(entry.track, entry.asked.wants, now_s, longest_s)
        return decide(entry.state, current, load, entry.asked, entry.track, now_s)

    def verdict(self, entry: Entry, now_s: float) -> Decision | Held:
        """What is to be done about a service now, by the last look at its load and by what waits at this moment."""
        load = self.windows.load(entry.state.name, now_s)
        return decide(entry.state, entry.current, load, entry.asked, entry.track, now_s)

    def decided(self, entry: Entry, current: Current, decision: Decision, now_s: float) -> None:
        """A decision was stored."""
        entry.current = current
        if decision.wanted < decision.before:
            entry.track = replace(entry.track, decreased_s=now_s)
        entry.started_s = now_s if decision.before == 0 < decision.wanted else None


def _learn_start(entry: Entry, load: Load) -> None:
    if entry.started_s is not None and load.ready > 0 and load.at_s > entry.started_s:
        entry.start_s, entry.started_s = load.at_s - entry.started_s, None
