"""What was recommended over the last minutes: the memory behind the stabilisation windows.

A window counts only where it is covered: recommendations without a gap longer than GAP_S from its beginning to now.
So neither a restart of this process nor a loss of metrics can take a replica away early.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from easel_autoscaler.decide.load import FRESH_S
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

    def covered_s(self, now_s: float) -> float:
        """For how long recommendations are known without a gap, until now; 0 when they stopped."""
        if not self.spans or now_s - self.spans[-1].until_s > GAP_S:
            return 0.0
        return now_s - self.spans[0].since_s

    def within(self, window_s: float, now_s: float) -> tuple[Span, ...]:
        """What was recommended in the last `window_s` seconds; the newest always counts."""
        recent = tuple(span for span in self.spans if span.until_s >= now_s - window_s)
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


def after_change(track: Track, before: ServiceState | None, after: ServiceState) -> Track:
    """The track to go on with: begun anew where what was recommended for is no longer what is asked for."""
    same = (
        before is not None
        and (before.uid, before.autoscaling_generation, before.instance_generation, before.wanted)
        == (after.uid, after.autoscaling_generation, after.instance_generation, after.wanted)
    )  # fmt: skip
    return track if same else Track(decreased_s=track.decreased_s)
