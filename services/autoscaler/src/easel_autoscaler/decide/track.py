"""What was recommended over the last minutes, and for how long nobody asked: the memory behind the windows.

A window counts only where it is covered: recommendations without a gap longer than GAP_S from its beginning to now.
So neither a restart of this process nor a loss of metrics can take a replica away early. The grace before zero is
counted likewise, over seconds in which a replica was ready and no request was told of.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from easel_autoscaler.decide.load import FRESH_S, Load
from easel_contracts.facts import ServiceState

GAP_S = FRESH_S
"""Longest silence between two recommendations that a window bridges."""


class Span(Struct, frozen=True):
    """One recommendation that stood for a while."""

    wants: int
    since_s: float
    until_s: float


class Track(Struct, frozen=True, kw_only=True):
    """Recommendations in the order of time, without gaps. Times are monotonic seconds of this process."""

    spans: tuple[Span, ...] = ()
    decreased_s: float | None = None
    """When replicas were last taken away."""
    quiet_since_s: float | None = None
    """When the last request was told of, or when this process began to listen; None: one is there now."""
    heard_s: float | None = None
    """Until when the load is known."""

    def covered_s(self, now_s: float) -> float:
        """For how long recommendations are known without a gap, until now; 0 when they stopped."""
        if not self.spans or now_s - self.spans[-1].until_s > GAP_S:
            return 0.0
        return now_s - self.spans[0].since_s

    def quiet_s(self, now_s: float) -> float | None:
        """For how long no request came, as far as is known; None: one is there, or nothing is known now."""
        if self.quiet_since_s is None or self.heard_s is None or now_s - self.heard_s > GAP_S:
            return None
        return self.heard_s - self.quiet_since_s

    def within(self, window_s: float, now_s: float) -> tuple[Span, ...]:
        """What was recommended in the last `window_s` seconds; the newest always counts, in a window of 0 alone."""
        recent = tuple(span for span in self.spans if span.until_s > now_s - window_s)
        return recent or self.spans[-1:]


def remember(track: Track, wants: int, now_s: float, longest_window_s: float) -> Track:
    """The track with one more recommendation; begins anew after a gap, forgets what no window reaches."""
    last = track.spans[-1] if track.spans else None
    if last is None or now_s - last.until_s > GAP_S:
        return replace(track, spans=(Span(wants, now_s, now_s),))
    if last.wants == wants:
        spans = (*track.spans[:-1], Span(wants, last.since_s, now_s))
    else:
        spans = (*track.spans[:-1], Span(last.wants, last.since_s, now_s), Span(wants, now_s, now_s))
    oldest_s = now_s - longest_window_s
    kept = tuple(span for span in spans[:-1] if span.until_s >= oldest_s)
    return replace(track, spans=(*kept, spans[-1]))


def listen(track: Track, load: Load) -> Track:
    """The track with one more look at who asks; begins anew after a gap."""
    unbroken = track.heard_s is not None and load.at_s - track.heard_s <= GAP_S
    known = [at_s for at_s in (track.quiet_since_s, load.busy_s) if at_s is not None] if unbroken else []
    busy = load.busy_s is not None and load.busy_s >= load.at_s
    return replace(track, quiet_since_s=None if busy else max(known, default=load.at_s), heard_s=load.at_s)


def after_change(track: Track, before: ServiceState | None, after: ServiceState) -> Track:
    """The track to go on with: begun anew where what was recommended for is no longer what is asked for."""
    same = (
        before is not None
        and (before.uid, before.autoscaling_generation, before.instance_generation, before.wanted)
        == (after.uid, after.autoscaling_generation, after.instance_generation, after.wanted)
    )  # fmt: skip
    return track if same else Track(decreased_s=track.decreased_s)
