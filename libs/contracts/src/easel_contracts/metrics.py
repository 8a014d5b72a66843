"""One-second metrics on core NATS (`easel.metric.<workspace>.<kind>.<key>`), msgpack. Readers ignore unknown fields."""

from __future__ import annotations

import math

from msgspec import Struct

SCHEMA_VERSION = 1


REFUSALS = ("408", "429", "450", "499", "503")
"""Time limit, rate or requests in flight, queue, caller who left before the answer, no replica."""


class ServiceMetrics(Struct, frozen=True, kw_only=True):
    """One second of one service, as Envoy saw it. Published by the monitor."""

    schema_version: int = SCHEMA_VERSION
    workspace: str
    service: str
    at_unix_s: float
    interval_s: float
    requests_by_code: dict[str, int]
    """Answers in the interval by class: `2xx` `3xx` `4xx` `5xx`."""
    in_flight: int
    latency_buckets_ms: tuple[float, ...]
    """Upper bounds of the histogram's buckets."""
    latency_counts: tuple[int, ...]
    """Requests per bucket in the interval; one more than the bounds (the last is above all)."""
    retries: int
    timeouts: int
    replicas_ready: int
    """Healthy endpoints in Envoy's eyes."""
    refused_by_code: dict[str, int] = {}
    """What the gateway answered itself in the interval, by exact code of REFUSALS; where no replica was tried, it is in
    no other number."""


class ReplicaMetrics(Struct, frozen=True, kw_only=True):
    """One second of one replica. Published by its agent."""

    schema_version: int = SCHEMA_VERSION
    workspace: str
    service: str
    replica: str
    node: str
    at_unix_s: float
    cpu_cores: float
    memory_mib: float
    """Resident memory of the replica's processes."""


class NodeMetrics(Struct, frozen=True, kw_only=True):
    """One second of one node. Published by its agent."""

    schema_version: int = SCHEMA_VERSION
    node: str
    at_unix_s: float
    cpu_cores: float
    memory_mib: float
    disk_free_mib: float


class HoldMetrics(Struct, frozen=True, kw_only=True):
    """Requests of one service that wait for a replica. Published by the router: at once when the first one comes, then
    once a second while any waits; silence means none. It is the wake-up signal of a service at zero."""

    schema_version: int = SCHEMA_VERSION
    workspace: str
    service: str
    at_unix_s: float
    held: int
    oldest_s: float
    """How long the first of them has waited."""


BIN_GROWTH = 1.02
"""Each bin of the exact counts ends 2 % above the one before."""
FIRST_BIN_MS = 0.1


def latency_bin(ms: float) -> int:
    """The bin of a latency: 0 up to FIRST_BIN_MS, and so on. A threshold on a bin's bound loses no exactness."""
    if ms <= FIRST_BIN_MS:
        return 0
    found = math.ceil(round(math.log(ms / FIRST_BIN_MS) / math.log(BIN_GROWTH), 9))
    return max(found, 1)


def bin_upper_ms(number: int) -> float:
    """The upper bound of a bin, which belongs to it."""
    return FIRST_BIN_MS * BIN_GROWTH**number
