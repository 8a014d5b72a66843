"""Names of things: typed ids, how they are made, and the subjects they appear in."""

from __future__ import annotations

import os
import re
import secrets
import time
from typing import NewType
from uuid import UUID

Workspace = NewType("Workspace", str)
ServiceName = NewType("ServiceName", str)
ReplicaId = NewType("ReplicaId", str)
"""A replica's id is its name: `<service>-<revision>-<5 chars>`."""
NodeId = NewType("NodeId", str)

DEFAULT_WORKSPACE = Workspace("default")

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_]{2,62}\Z")
"""EAS's rule: lower-case letters, digits, underscore; 3 to 63 characters; we ask for a letter first."""

RESERVED_NAMES = frozenset({"servicediscovery"})
"""Neither a service's nor a group's: the gateway finds both by a path's third segment, and has this path itself."""

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def replica_id(service: str, revision: int) -> ReplicaId:
    """A new replica id; vowels and look-alikes are left out so that it can be read aloud."""
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))
    return ReplicaId(f"{service}-{revision}-{suffix}")


def uuid7() -> str:
    """A time-ordered UUID (RFC 9562, version 7)."""
    millis = time.time_ns() // 1_000_000
    value = (millis & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def fact_subject(workspace: str, entity: str, key: str, verb: str) -> str:
    """Where a fact is published: `easel.fact.<workspace>.<entity>.<key>.<verb>`."""
    return f"easel.fact.{workspace}.{entity}.{token(key)}.{verb}"


def metric_subject(workspace: str, kind: str, key: str) -> str:
    """Where one-second metrics are published: `easel.metric.<workspace>.<kind>.<key>`."""
    return f"easel.metric.{workspace}.{kind}.{token(key)}"


def token(key: str) -> str:
    """`key` as one NATS subject token (no dots, spaces or wildcards)."""
    return re.sub(r"[\s.*>]", "_", key)
