"""What an access log entry says of the replica that was asked: an answer and how long it took, an error, or nothing.

- What Envoy refused (401, 404, 429, 450) or the caller got wrong before a replica was asked says nothing of a replica,
  and is not counted. What the replica itself answered below 500 is an answer, whatever the caller makes of it.
- An error: 5xx by whomever, 408, an answer that broke off, and no answer, where that was not the caller's doing.
- gRPC calls end with a status of their own under HTTP 200. Those that say something of the server are errors (see
  GRPC_ERRORS), the caller's own faults are answers.
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


GRPC_UNKNOWN = 2

GRPC_ERRORS = frozenset({GRPC_UNKNOWN, 4, 8, 12, 13, 14, 15})
"""gRPC statuses (https://grpc.io/docs/guides/status-codes/) that a good server would not have given:

UNKNOWN (an exception that nobody caught), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (of a model mostly memory; a caller's
quota is the gateway's, which refuses before), UNIMPLEMENTED (a release that lost a method; HTTP's 501), INTERNAL,
UNAVAILABLE, DATA_LOSS. No error: OK, CANCELLED (by the caller), INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS,
PERMISSION_DENIED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNAUTHENTICATED: what HTTP calls 4xx. Numbers above these
are UNKNOWN to a client, and so here.
"""
_LAST_GRPC_STATUS = 16


class Seen(Struct, frozen=True):
    """One request, as Envoy tells it at its end. Times in seconds since it came; None: that never happened."""

    status: int
    """0: no answer began."""
    details: str
    left: bool
    """The caller's side ended it."""
    broken: bool
    """No replica could be reached, or its side or a time limit ended it before the answer was whole."""
    sent_s: float | None
    sent_all_s: float | None
    answered_s: float | None
    """First byte of the answer."""
    ended_s: float
    grpc_status: int | None = None
    """Of a gRPC call that came to its end."""


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
    if seen.grpc_status is not None and is_grpc_error(seen.grpc_status):
        return FAILED
    return Outcome(False, latency_bin(_latency_ms(seen)))


def is_grpc_error(status: int) -> bool:
    """Whether a gRPC status speaks against the server."""
    return status in GRPC_ERRORS or status > _LAST_GRPC_STATUS


def _latency_ms(seen: Seen) -> float:
    first = seen.ended_s if seen.answered_s is None else seen.answered_s
    sent = seen.sent_all_s
    if sent is None or sent > first:
        sent = seen.sent_s or 0.0
    return (first - sent) * 1000
