"""What becomes of a request that comes while no replica takes traffic: it waits, or is refused with the reason. Pure.

A wait is bounded in number (per service) and in time: the service's limit (metadata.rpc.keepalive) or the client's own,
whichever is shorter, counted from the request's arrival at Envoy, so that a router that was restarted goes on counting.
"""

from __future__ import annotations

import math
import re

from msgspec import Struct

from easel_router.decide.snapshot import ServicePlan

_GRPC_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")

LEAST_RETRY_AFTER_S = 1
MAX_TRIES = 18
"""Of one request in all, at replicas and at the hold listener."""

UNKNOWN_RETRY_AFTER_S = 5
"""What a client is told to wait where no cold start was seen yet."""


class Wait(Struct, frozen=True, kw_only=True):
    """It waits."""

    left_s: float
    position: int
    """From 1, in the order of arrival."""
    expected_s: float | None
    """None: no cold start was seen yet."""


class Refuse(Struct, frozen=True, kw_only=True):
    """It is answered now."""

    status: int
    code: str
    message: str
    hint: str
    retry_after_s: int
    position: int | None = None
    expected_s: float | None = None


def limit_s(plan: ServicePlan, timeout_header: str, grpc_timeout: str) -> float:
    """Seconds that a request may take to its first byte; a client's wish that cannot be read counts as none."""
    limits = [plan.traffic.keepalive_ms / 1000]
    try:
        asked = float(timeout_header) if timeout_header else math.inf
    except ValueError:
        asked = math.inf
    if asked > 0:
        limits.append(asked)
    if match := _GRPC_TIMEOUT.fullmatch(grpc_timeout):
        limits.append(int(match[1]) * _GRPC_UNITS_S[match[2]])
    return min(limits)


def admit(plan: ServicePlan, *, held: int, waited_s: float, limit: float, expected_s: float | None) -> Wait | Refuse:
    """What to do with one more request while `held` others wait."""
    hold = plan.hold
    assert hold is not None, "a plan with replicas holds nobody"
    retry_s = retry_after_s(expected_s)
    if hold.hopeless:
        return Refuse(
            status=503, code="ServiceFailed", message=f"service {plan.service} cannot answer: {hold.hopeless}",
            hint=f"`easel explain {plan.service}` says more; waiting does not help", retry_after_s=retry_s,
        )  # fmt: skip
    if hold.wakes_only:
        return Refuse(
            status=503, code="WakingUp", hint="send it again then, or set autoscaler.behavior.onZero.interceptTraffic",
            message=f"service {plan.service} had no replica and is being started", retry_after_s=retry_s,
            expected_s=expected_s,
        )  # fmt: skip
    if waited_s >= limit:
        return expired(plan, limit=limit, position=held + 1, expected_s=expected_s)
    if held >= hold.max_requests:
        return Refuse(
            status=503, code="HoldQueueFull", retry_after_s=retry_s, expected_s=expected_s,
            message=f"{held} requests wait for service {plan.service} already, the most that may "
            "(traffic.hold_max_requests)", hint="send it again later",
        )  # fmt: skip
    return Wait(left_s=limit - waited_s, position=held + 1, expected_s=expected_s)


def expired(plan: ServicePlan, *, limit: float, position: int, expected_s: float | None) -> Refuse:
    """The answer to a request whose time is over."""
    own = plan.traffic.keepalive_ms / 1000
    whose = "the service's limit (metadata.rpc.keepalive)" if limit >= own else "the client's own limit"
    return Refuse(
        status=408, code="RequestTimeout", retry_after_s=retry_after_s(expected_s), position=position,
        expected_s=expected_s, message=f"no replica of service {plan.service} was ready within {limit:g} s, {whose}",
        hint=f"`easel explain {plan.service}` says what it waits for; a longer limit, or a replica that is kept "
        "(autoscaler.min 1), avoids it",
    )  # fmt: skip


def unreachable(plan: ServicePlan) -> Refuse:
    """The answer to a request that found no living replica in all its tries, although one is said to be ready."""
    return Refuse(
        status=503, code="ReplicaUnreachable", retry_after_s=LEAST_RETRY_AFTER_S,
        message=f"no replica of service {plan.service} accepted the connection in {MAX_TRIES} tries",
        hint=f"`easel w {plan.service}` shows the replicas, `easel logs {plan.service}` what they say",
    )  # fmt: skip


def retry_after_s(expected_s: float | None) -> int:
    """Whole seconds for a Retry-After header."""
    if expected_s is None:
        return UNKNOWN_RETRY_AFTER_S
    return max(math.ceil(expected_s), LEAST_RETRY_AFTER_S)
