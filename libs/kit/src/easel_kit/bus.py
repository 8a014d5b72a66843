"""NATS through FastStream: facts in and out, dead letters, one-second metrics. The only file that knows FastStream.

Acknowledgement is manual: a handler that raises is tried again with growing delay, and what cannot be handled after
MAX_DELIVER deliveries (or cannot be read at all) goes to the dead-letter stream before it is terminated, so that
nothing is lost silently. Facts are handled one at a time, in the stream's order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from nats.aio.client import Client
from nats.js import JetStreamContext

from easel_contracts import facts
from easel_contracts.facts import Entity, Fact
from easel_kit.settings import ProcessSettings, secret
from easel_kit.streams import DEAD, FACTS, MAX_DELIVER, consumer_config, drift
from easel_kit.telemetry import get_logger, span_from

FactHandler = Callable[[Fact], Awaitable[None]]
MetricsHandler = Callable[[str, bytes], Awaitable[None]]

log = get_logger("bus")

BusError = nats.errors.Error
"""Anything the bus refused or could not do; JetStream's own errors are kinds of it."""

PUBLISH_TIMEOUT_S = 5.0
FETCH_TIMEOUT_S = 2.0
"""How long one pull request waits; an idle process sends one this often (0.3 ms of CPU each).

A server that died has forgotten the request, and the client asks again only when it has run out: this long at most do
facts lie after NATS came back.
"""


class ConsumerDrift(Exception):
    """The durable consumer is missing or not as this code expects; `migrate` must run first."""


class Bus:
    """One connection to NATS."""

    def __init__(self, settings: ProcessSettings, process: str) -> None:
        self.process = process
        self._inbox = f"_INBOX_{process}"
        self._client: Client | None = None
        self.delivered = 0
        self.dead = 0
        seed = secret(settings.nats_seed_file)
        self._broker = NatsBroker(
            [settings.nats_url], nkeys_seed_str=seed, name=f"easel-{process}", inbox_prefix=self._inbox,
            max_reconnect_attempts=-1, reconnect_time_wait=0.25, ping_interval=15, max_outstanding_pings=2,  # type: ignore[arg-type]
            error_cb=self._on_error, graceful_timeout=settings.graceful_stop_s, ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded, logger=None,
        )  # fmt: skip

    async def connect(self) -> None:
        """Connects; waits for ever where NATS is not up yet."""
        self._client = await self._broker.connect()

    @property
    def client(self) -> Client:
        """The bare connection, for what FastStream does not offer."""
        assert self._client is not None, "Bus.connect() comes first"
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """JetStream on the bare connection."""
        return self.client.jetstream(timeout=PUBLISH_TIMEOUT_S)

    def on_facts(self, handlers: Mapping[Entity, FactHandler]) -> None:
        """Registers the process's durable consumer; facts of other entities are acknowledged unread."""

        async def receive(body: bytes, message: NatsMessage) -> None:
            await self._receive(body, message, handlers)

        subscriber = self._broker.subscriber(
            "easel.fact.>", stream=JStream(FACTS, declare=False), durable=self.process,
            pull_sub=PullSub(batch_size=1, timeout=FETCH_TIMEOUT_S), ack_policy=AckPolicy.MANUAL,
            inbox_prefix=f"{self._inbox}.".encode(),
        )  # fmt: skip
        subscriber(receive)

    def on_metrics(self, subject: str, handler: MetricsHandler) -> None:
        """Registers a handler of core messages (one-second metrics): at most once, no acknowledgement."""

        async def receive(body: bytes, message: NatsMessage) -> None:
            try:
                await handler(message.raw_message.subject, body)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning("metrics not understood", subject=message.raw_message.subject, error=str(error))

        self._broker.subscriber(subject)(receive)

    async def start(self) -> None:
        """Starts delivering to what is registered."""
        await self._broker.start()

    async def stop(self) -> None:
        """Stops delivering and closes the connection."""
        await self._broker.stop()

    async def publish_fact(self, subject: str, payload: bytes, msg_id: str, traceparent: str | None) -> None:
        """Stores a fact in the stream; returns when it is stored, raises BusError or TimeoutError otherwise."""
        headers = {"Nats-Msg-Id": msg_id}
        if traceparent:
            headers["traceparent"] = traceparent
        await self._publish(subject, payload, headers, FACTS)

    async def publish_core(self, subject: str, payload: bytes) -> None:
        """Sends a message nobody stores."""
        await self.client.publish(subject, payload)

    async def check_consumer(self, listens: tuple[Entity, ...]) -> int:
        """Messages the consumer has yet to deliver or acknowledge; raises ConsumerDrift when it is not as expected."""
        wanted = consumer_config(self.process, listens)
        try:
            info = await self.js.consumer_info(FACTS, self.process)
        except nats.js.errors.NotFoundError as error:
            raise ConsumerDrift(f"durable consumer {self.process} does not exist; run migrate") from error
        if differences := drift(wanted, info.config):
            raise ConsumerDrift(f"durable consumer {self.process}: {'; '.join(differences)}; run migrate")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str], stream: str) -> None:
        try:
            await self.js.publish(subject, payload, timeout=PUBLISH_TIMEOUT_S, stream=stream, headers=headers)
        except nats.js.errors.NoStreamResponseError as error:
            raise BusError(f"stream {stream} does not take {subject}") from error

    async def _receive(self, body: bytes, message: NatsMessage, handlers: Mapping[Entity, FactHandler]) -> None:
        attempt = message.raw_message.metadata.num_delivered
        try:
            fact = facts.decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            await self._bury(message, body, f"cannot be read: {error}")
            return
        handler = handlers.get(fact.entity)
        try:
            if handler:
                with span_from(fact.cause.traceparent, f"{self.process} {fact.type}"):
                    await handler(fact)
        except Exception as error:  # whatever a handler raises, the message must be settled
            log.warning("fact not handled", fact=fact.type, key=fact.key, attempt=attempt, error=repr(error))
            if attempt < MAX_DELIVER - 1:
                await message.nack(delay=min(0.05 * 2**attempt, 30.0))
            else:
                await self._bury(message, body, repr(error))
            return
        self.delivered += 1
        await message.ack()

    async def _bury(self, message: NatsMessage, body: bytes, error: str) -> None:
        raw = message.raw_message
        sequence = raw.metadata.sequence.stream
        headers = {
            "Nats-Msg-Id": f"dead-{sequence}-{self.process}",
            "Easel-Subject": raw.subject,
            "Easel-Sequence": str(sequence),
            "Easel-Consumer": self.process,
            "Easel-Error": error.replace("\r", " ").replace("\n", " ")[:1000],
        }
        await self._publish(f"easel.dead.{self.process}", body, headers, DEAD)
        self.dead += 1
        log.error("dead letter", subject=raw.subject, sequence=sequence, error=error)
        await message.reject()

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats", process=self.process, error=repr(error))


async def _undecoded(message: Any) -> bytes:
    """Bodies reach handlers as bytes: facts.decode is ours, so that bad ones become dead letters."""
    body: bytes = message.body
    return body
