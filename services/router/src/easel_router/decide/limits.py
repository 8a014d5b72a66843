"""What one Envoy lets through of a service's or a group's limits: pure arithmetic, no message of Envoy's.

A limit is of the whole, over all Envoys; each Envoy counts for itself. So each gets an equal share, and the shares are
dealt again when an Envoy comes or goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from easel_contracts.spec import GatewayPolicy


class Limited(Protocol):
    """A token, as far as it concerns limits."""

    @property
    def name(self) -> str: ...

    @property
    def rate_limit_qps(self) -> int: ...


class Rate(Struct, frozen=True, kw_only=True):
    """A token bucket at one Envoy: `tokens` come evenly over `every_s` seconds."""

    tokens: int
    every_s: int
    burst: int
    """Tokens that are there at the start, and at most: about one second's worth, 1 at least."""
    why: str
    """Which limit it is, for those who are refused."""


class Room(Struct, frozen=True, kw_only=True):
    """How many requests may be in flight at one Envoy, those that wait included."""

    requests: int
    why: str


class TokenRate(Struct, frozen=True, kw_only=True):
    """What one token may send."""

    token: str
    """Its name."""
    rate: Rate


class Limits(Struct, frozen=True, kw_only=True):
    """What one Envoy lets through. None, 0: no limit."""

    tokens: tuple[TokenRate, ...] = ()
    """Tokens with a limit of their own, which counts before that of all."""
    rate: Rate | None = None
    concurrency: Room | None = None
    """More are answered 429."""
    queue: Room | None = None
    """What replicas work on and what waits for them; more are answered 450."""
    workers: int = 0
    """Connections to each replica: requests that it answers at a time."""


NONE = Limits()


def is_limited(policy: GatewayPolicy, tokens: Iterable[Limited] = ()) -> bool:
    """Whether anything depends on how many Envoys there are."""
    whole = policy.rate_limit_qps or policy.concurrency_limit
    each = policy.replica_rate_limit_qps or policy.worker_threads
    return bool(whole or each or any(token.rate_limit_qps for token in tokens))


def shares(policy: GatewayPolicy, *, replicas: int, envoys: int, tokens: Iterable[Limited] = ()) -> Limits:
    """One Envoy's share, with `replicas` in traffic and `envoys` (1 or more) alive.

    Rates divide exactly. Numbers of requests are rounded down, so that all Envoys together never let more through than
    the limit, but each lets 1 through: with more Envoys than a limit is large, the sum is above it.
    """
    if not is_limited(policy, tokens := tuple(tokens)):
        return NONE
    workers = _share(policy.worker_threads, envoys)
    return Limits(
        tokens=tuple(
            TokenRate(token=token.name, rate=_bucket(token.rate_limit_qps, envoys, ""))
            for token in tokens
            if token.rate_limit_qps
        ),
        rate=_rate(policy, replicas, envoys),
        concurrency=_concurrency(policy.concurrency_limit, envoys),
        queue=_queue(policy, replicas, envoys) if workers and replicas else None,
        workers=workers,
    )


def _bucket(qps: int, envoys: int, why: str) -> Rate:
    return Rate(tokens=qps, every_s=envoys, burst=max(1, math.ceil(qps / envoys)), why=why)


def _share(limit: int, envoys: int) -> int:
    return max(1, limit // envoys) if limit else 0


def _rate(policy: GatewayPolicy, replicas: int, envoys: int) -> Rate | None:
    """The smaller of the two. Without a replica in traffic as if there were one: requests may be held."""
    kinds = []
    if policy.rate_limit_qps:
        kinds.append((policy.rate_limit_qps, f"{_requests(policy.rate_limit_qps)} a second"))
    if policy.replica_rate_limit_qps:
        qps = policy.replica_rate_limit_qps * max(1, replicas)
        each = f"{_requests(policy.replica_rate_limit_qps)} a second and replica, {max(1, replicas)} in traffic"
        kinds.append((qps, each))
    if not kinds:
        return None
    qps, why = min(kinds)
    return _bucket(qps, envoys, why)


def _concurrency(limit: int, envoys: int) -> Room | None:
    if not limit:
        return None
    return Room(requests=_share(limit, envoys), why=f"{_requests(limit)} at a time{_of(envoys)}")


def _queue(policy: GatewayPolicy, replicas: int, envoys: int) -> Room:
    each = _share(policy.worker_threads, envoys)
    waiting = policy.max_queue_size * replicas // envoys
    why = f"{policy.worker_threads} at work and {policy.max_queue_size} waiting per replica, {replicas} in traffic"
    return Room(requests=each * replicas + waiting, why=why + _of(envoys))


def _of(envoys: int) -> str:
    return "" if envoys == 1 else f" (approximate: shared by {envoys} gateways)"


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"
