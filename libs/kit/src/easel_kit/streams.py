"""The bus's set-up: streams and durable consumers. Made by `migrate` alone; processes only check them.

Settings and their reasons: docs/mechanisms/bus.md.
"""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from easel_contracts.facts import Entity

FACTS = "FACTS"
DEAD = "DEAD"
ADVISORIES = "ADVISORIES"

DAY_S = 86_400.0
MIB = 1024 * 1024

MAX_DELIVER = 10
"""Deliveries of a fact before it becomes a dead letter."""
ACK_WAIT_S = 30.0
MAX_ACK_PENDING = 256


def stream_configs(replicas: int = 1) -> list[StreamConfig]:
    """Every stream of the control plane. Queue streams are made by the queue."""
    return [
        StreamConfig(
            name=FACTS, subjects=["easel.fact.>"], retention=RetentionPolicy.LIMITS, discard=DiscardPolicy.OLD,
            storage=StorageType.FILE, max_age=7 * DAY_S, max_bytes=1024 * MIB, duplicate_window=600,
            allow_direct=True, num_replicas=replicas,
        ),
        StreamConfig(
            name=DEAD, subjects=["easel.dead.>"], retention=RetentionPolicy.LIMITS, discard=DiscardPolicy.OLD,
            storage=StorageType.FILE, max_age=30 * DAY_S, max_bytes=128 * MIB, allow_direct=True,
            duplicate_window=600, num_replicas=replicas,
        ),
        StreamConfig(
            name=ADVISORIES,
            subjects=[
                "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
                "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
            ],
            retention=RetentionPolicy.LIMITS, discard=DiscardPolicy.OLD, storage=StorageType.FILE,
            max_age=30 * DAY_S, max_bytes=16 * MIB, num_replicas=replicas,
        ),
    ]  # fmt: skip


def consumer_config(process: str, listens: tuple[Entity, ...]) -> ConsumerConfig:
    """The one durable pull consumer of a process. Every process listens to keys as well."""
    entities = dict.fromkeys((*listens, "key"))
    return ConsumerConfig(
        durable_name=process, filter_subjects=[f"easel.fact.*.{entity}.>" for entity in entities],
        deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT_S,
        max_deliver=MAX_DELIVER, max_ack_pending=MAX_ACK_PENDING,
    )  # fmt: skip


async def ensure_stream(js: JetStreamContext, config: StreamConfig) -> None:
    """Creates the stream, or brings it to `config`."""
    assert config.name is not None
    try:
        await js.stream_info(config.name)
    except NotFoundError:
        await js.add_stream(config)
    else:
        await js.update_stream(config)


async def ensure_consumer(js: JetStreamContext, config: ConsumerConfig) -> None:
    """Creates the durable consumer, or updates what may be updated (filters, limits)."""
    await js.add_consumer(FACTS, config)


def drift(wanted: ConsumerConfig, found: ConsumerConfig) -> list[str]:
    """Names of settings in which a durable consumer differs from what this code expects."""
    same = {
        "filter_subjects": (sorted(wanted.filter_subjects or []), sorted(_filters(found))),
        "ack_policy": (wanted.ack_policy, found.ack_policy),
        "max_deliver": (wanted.max_deliver, found.max_deliver),
    }
    return [f"{name}: expected {a}, found {b}" for name, (a, b) in same.items() if a != b]


def _filters(config: ConsumerConfig) -> list[str]:
    return config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
