"""What an access log entry says of the replica that was asked: an answer and how long it took, an error, or nothing.

- What Envoy refused (401, 404, 429, 450) or the caller got wrong before a replica was asked says nothing of a replica,
  and is not counted. What the replica itself answered below 500 is an answer, whatever the caller makes of it.
- An error: 5xx by whomever, 408, an answer that broke off, and no answer, where that was not the caller's doing.
- A caller who left: an answer as slow as he waited, for it was that slow at least. One that was never sent on says
  nothing.

The latency is that of the replica: from the moment the request was sent on as a whole to the first byte of the answer.
From its first byte on, a caller who uploads slowly would make the replica look slow. Where the answer begins before the
request has ended (streams in both directions), it is from the request's first byte. An error has no latency: what fails
is fast, and would hide that the rest is slow.
"""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.metrics import latency_bin

BY_REPLICA = "via_upstream"
"""response_code_details of an answer that came from a replica."""


class Seen(Struct, frozen=True):
    """One request, as Envoy tells it at its end. Times in seconds since it came; None: that never happened."""

    status: int
    """0: no answer began."""
    details: str
    left: bool
    """The caller's side ended it."""
    broken: bool
    """The replica's side, or a time limit, ended it before the answer was whole."""
    sent_s: float | None
    sent_all_s: float | None
    answered_s: float | None
    """First byte of the answer."""
    ended_s: float


class Outcome(Struct, frozen=True):
    """What is counted."""

    error: bool
    latency_bin: int | None = None


FAILED = Outcome(True)


def outcome_of(seen: Seen) -> Outcome | None:
    """What one request is counted as; None: as nothing."""
    if seen.left:
        return None if seen.sent_s is None else Outcome(False, latency_bin(_latency_ms(seen)))
    if seen.broken or seen.status == 0 or seen.status == 408 or seen.status >= 500:
        return FAILED
    if seen.details != BY_REPLICA:
        return None
    return Outcome(False, latency_bin(_latency_ms(seen)))


def _latency_ms(seen: Seen) -> float:
    first = seen.ended_s if seen.answered_s is None else seen.answered_s
    sent = seen.sent_all_s
    if sent is None or sent > first:
        sent = seen.sent_s or 0.0
    return (first - sent) * 1000
