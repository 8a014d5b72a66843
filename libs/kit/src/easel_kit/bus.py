"""NATS through FastStream: facts in and out, dead letters, one-second metrics. The only file that knows FastStream.

Acknowledgement is manual: a handler that raises is tried again with growing delay, and what cannot be handled after
MAX_DELIVER deliveries (or cannot be read at all) goes to the dead-letter stream before it is terminated, so that
nothing is lost silently.

Facts of one key are handled one at a time in the stream's order, those of different keys at the same time
(easel_kit.lanes). A fact that failed comes again after its delay, and meanwhile those after it are handled: handlers
see it late then, and drop it if what they know is newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import nats.errors
import nats.js.errors
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.nats.subscriber.usecases import PullStreamSubscriber
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from easel_contracts import facts
from easel_contracts.facts import Entity, Fact
from easel_kit.db import POOL_SIZE
from easel_kit.lanes import Held, Lanes
from easel_kit.settings import ProcessSettings, secret
from easel_kit.streams import ACK_WAIT_S, DEAD, FACTS, MAX_DELIVER, consumer_config, drift
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
AT_ONCE = POOL_SIZE - 2
"""Keys whose facts are handled at the same time: fewer than there are connections, so that a backlog of facts leaves
some to everybody else, and handlers that need a second one cannot all wait for each other."""
FETCH = 64
"""Facts that one request asks for at most, and only where so many wait. nats-py answers a request for more only when
the server says that there is nothing left; after a quiet time it has two requests open, the server delivers by the
other, and what came waits for its end: up to FETCH_TIMEOUT_S. A backlog takes twice as long one at a time
(benchmarks/facts.py).
"""
HOLD = 64
"""Facts in hand from which on no more are fetched. HOLD + FETCH of two copies fit into MAX_ACK_PENDING."""
HANDLE_S = 60.0
"""Longest time for a handler; then the fact has failed, so that a handler that hangs does not hold its key for ever."""
PROLONG_S = ACK_WAIT_S / 3
"""How often the server is told that the facts in hand are still wanted; else it would deliver them again."""
FETCHED_S = 0.5
"""Longest time at a graceful stop for a fetch that finds something; it takes milliseconds."""
FINISH_S = 3.0
"""How long a graceful stop goes on handling what is in hand; the rest is given back."""


class ConsumerDrift(Exception):
    """The durable consumer is missing or not as this code expects; `migrate` must run first."""


def fetch_size(waiting: int) -> int:
    """How many facts the next request asks for, where so many wait at the server."""
    return max(1, min(FETCH, waiting))


class Bus:
    """One connection to NATS."""

    def __init__(self, settings: ProcessSettings, process: str) -> None:
        self.process = process
        self._inbox = f"_INBOX_{process}"
        self._client: Client | None = None
        self._handlers: Mapping[Entity, FactHandler] = {}
        self._lanes = Lanes(self._handle, at_once=AT_ONCE, hold=HOLD)
        self._subscriber: PullStreamSubscriber | None = None
        self._prolonging: asyncio.Task[None] | None = None
        self.delivered = 0
        self.dead = 0
        seed = secret(settings.nats_seed_file)
        self._broker = NatsBroker(
            [settings.nats_url], nkeys_seed_str=seed, name=f"easel-{process}", inbox_prefix=self._inbox,
            max_reconnect_attempts=-1, reconnect_time_wait=0.25, ping_interval=15, max_outstanding_pings=2,  # type: ignore[arg-type]
            error_cb=self._on_error, graceful_timeout=settings.graceful_stop_s, ack_policy=AckPolicy.MANUAL,
            decoder=_as_it_came, apply_types=False, logger=None,
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

        async def receive(message: Msg) -> None:
            # FastStream starts a call for each message of a fetch, in their order, and fetches again when all have
            # returned. With nothing to inject, none pauses before `put`, so they reach it in that order.
            self._lanes.put(_lane(message.subject), message.metadata.sequence.stream, message)
            pull.batch_size = fetch_size(message.metadata.num_pending)
            await self._lanes.room()

        self._handlers = handlers
        pull = PullSub(batch_size=1, timeout=FETCH_TIMEOUT_S)
        self._subscriber = self._broker.subscriber(
            "easel.fact.>", stream=JStream(FACTS, declare=False), durable=self.process,
            pull_sub=pull, ack_policy=AckPolicy.MANUAL,
            inbox_prefix=f"{self._inbox}.".encode(),
        )  # fmt: skip
        self._subscriber(receive)

    def on_metrics(self, subject: str, handler: MetricsHandler) -> None:
        """Registers a handler of core messages (one-second metrics): at most once, no acknowledgement."""

        async def receive(message: Msg) -> None:
            try:
                await handler(message.subject, message.data)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                log.warning("metrics not understood", subject=message.subject, error=str(error))

        self._broker.subscriber(subject)(receive)

    async def start(self) -> None:
        """Starts delivering to what is registered."""
        await self._broker.start()
        self._prolonging = asyncio.create_task(self._prolong())

    async def stop(self) -> None:
        """Stops delivering, handles what was delivered for FINISH_S, and closes the connection."""
        if self._subscriber:
            await self._finish(self._subscriber)
        if self._prolonging:
            self._prolonging.cancel()
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

    async def _handle(self, held: Held[Msg]) -> None:
        try:
            fact = facts.decode(held.message.data)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            await self._bury(held.message, f"cannot be read: {error}")
            return
        handler = self._handlers.get(fact.entity)
        try:
            if handler:
                with span_from(fact.cause.traceparent, f"{self.process} {fact.type}"):
                    async with asyncio.timeout(HANDLE_S):
                        await handler(fact)
        except Exception as error:  # whatever a handler raises, the message must be settled
            attempt = held.message.metadata.num_delivered
            log.warning("fact not handled", fact=fact.type, key=fact.key, attempt=attempt, error=repr(error))
            if attempt < MAX_DELIVER - 1:
                await held.message.nak(delay=min(0.05 * 2**attempt, 30.0))
            else:
                await self._bury(held.message, repr(error))
            return
        self.delivered += 1
        await held.message.ack()

    async def _bury(self, message: Msg, error: str) -> None:
        sequence = message.metadata.sequence.stream
        headers = {
            "Nats-Msg-Id": f"dead-{sequence}-{self.process}",
            "Easel-Subject": message.subject,
            "Easel-Sequence": str(sequence),
            "Easel-Consumer": self.process,
            "Easel-Error": error.replace("\r", " ").replace("\n", " ")[:1000],
        }
        await self._publish(f"easel.dead.{self.process}", message.data, headers, DEAD)
        self.dead += 1
        log.error("dead letter", subject=message.subject, sequence=sequence, error=error)
        await message.term()

    async def _prolong(self) -> None:
        while True:
            await asyncio.sleep(PROLONG_S)
            for message in self._lanes.held():
                try:
                    await message.in_progress()
                except BusError as error:
                    log.warning("not prolonged", subject=message.subject, error=repr(error))

    async def _finish(self, subscriber: PullStreamSubscriber) -> None:
        """Settles what is in hand. What was not handled in time is given back: the next copy has it at once."""
        self._lanes.shut()
        await self._fetch_over()
        await self._lanes.finish(FINISH_S)
        self._lanes.release()
        await subscriber.stop()
        for message in await self._lanes.finish(0.0):
            try:
                await message.nak()
            except BusError as error:  # then it comes again after ACK_WAIT_S
                log.warning("not given back", subject=message.subject, error=repr(error))

    async def _fetch_over(self) -> None:
        """Where there is something to fetch, waits until it is in hand: what comes later, the subscriber drops while it
        stops, and the next copy has it only after ACK_WAIT_S."""
        try:
            info = await self.client.jetstream(timeout=FETCHED_S).consumer_info(FACTS, self.process)
        except (BusError, TimeoutError):  # away: nothing comes
            return
        if info.num_pending or info.num_ack_pending:
            await self._lanes.fed(FETCHED_S)

    async def _on_error(self, error: Exception) -> None:
        log.warning("nats", process=self.process, error=repr(error))


def _lane(subject: str) -> str:
    """Workspace and key of a fact's subject: what speaks of one service is handled in one lane, whoever told it."""
    _, _, workspace, _, key, *_ = subject.split(".")
    return f"{workspace}/{key}"


async def _as_it_came(message: NatsMessage) -> Msg:
    """What handlers are called with: facts.decode is ours, so that what cannot be read becomes a dead letter."""
    return message.raw_message
