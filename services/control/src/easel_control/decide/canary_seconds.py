"""What one look adds to a canary: which weight was live, and the seconds that were counted since the last look. Pure.

A second is judged only where its weight was live on every Envoy all along, as seen by a look before and one after it;
the others are counted, not judged. Latencies are left out for COLD_S after a replica of the candidate came up.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_control.decide.canary import Burst, Canary, Span
from easel_control.decide.evidence import Counts, Second, observe, share_of

COLD_S = 30
"""Source: the limits of the method, DESIGN's reference: a new replica is slow at first."""
BURST_REQUESTS = 20
"""Requests over which the fast stop looks."""


class Reading(Struct, frozen=True, kw_only=True):
    """What the monitor told."""

    seconds: tuple[Second, ...] = ()
    """By time, those without a request left out."""
    final_through_s: int = 0
    """Up to here nothing changes any more."""


def looked(canary: Canary, reading: Reading, realised: int | None, serving: int, now: datetime) -> Canary:
    """The canary after a look."""
    now_s = int(now.timestamp())
    live = realised == canary.weight_permille
    canary = replace(
        canary, realised_permille=realised, spans=_spans(canary, live=live, now_s=now_s),
        live_at=(canary.live_at or now) if live else None, serving=serving,
        cold_until_s=now_s + COLD_S if serving > canary.serving else canary.cold_until_s,
    )  # fmt: skip
    last = reading.final_through_s
    if canary.spans and canary.spans[-1].is_open:
        last = min(last, canary.spans[-1].to_s - 1)  # what is live now may have changed since: the next look says so
    for second in reading.seconds:
        if canary.through_unix_s < second.unix_s <= last:
            canary = _with(canary, second)
    left = tuple(span for span in canary.spans if span.is_open or span.to_s > last + 1)
    return replace(canary, through_unix_s=max(canary.through_unix_s, last), spans=left)


def _spans(canary: Canary, *, live: bool, now_s: int) -> tuple[Span, ...]:
    *before, newest = canary.spans or (None,)
    kept = tuple(span for span in before if span is not None)
    is_same = newest is not None and newest.is_open and newest.permille == canary.weight_permille
    if newest is not None and is_same and live:
        return (*kept, replace(newest, to_s=max(newest.to_s, now_s)))
    if newest is not None:
        kept = (*kept, replace(newest, is_open=False))
    return (*kept, Span(canary.weight_permille, now_s + 1, now_s + 1)) if live else kept


def _with(canary: Canary, second: Second) -> Canary:
    span = next((s for s in canary.spans if s.from_s <= second.unix_s < s.to_s), None)
    share = share_of(canary.evidence, span.permille, canary.plan.biased) if span is not None else 0.0
    if 0.0 < share < 1.0 and second.unix_s < canary.cold_until_s:
        second = Second(second.unix_s, _without_latency(second.stable), _without_latency(second.candidate))
    of_step = span is not None and span.is_open
    return replace(
        canary, evidence=observe(canary.evidence, second, share), burst=_burst(canary.burst, second),
        step_requests=canary.step_requests + second.candidate.requests * of_step,
        step_errors=canary.step_errors + second.candidate.errors * of_step,
    )  # fmt: skip


def _without_latency(counts: Counts) -> Counts:
    return replace(counts, bins={})


def _burst(before: Burst, second: Second) -> Burst:
    """Begun anew once it was full: every request counts in one burst. Of stable, what came at the same time."""
    if not second.candidate.requests:
        return before
    if before.requests >= BURST_REQUESTS:
        before = before if most_fail(before) else Burst()
    return Burst(
        before.requests + second.candidate.requests, before.errors + second.candidate.errors,
        before.stable_requests + second.stable.requests, before.stable_errors + second.stable.errors,
    )  # fmt: skip


def most_fail(burst: Burst) -> bool:
    """More than half of the candidate's newest requests are errors, and not of stable's: that would be no fault of
    the candidate."""
    if burst.requests < BURST_REQUESTS or 2 * burst.errors <= burst.requests:
        return False
    return 2 * burst.stable_errors * burst.requests <= burst.errors * burst.stable_requests or not burst.stable_requests
