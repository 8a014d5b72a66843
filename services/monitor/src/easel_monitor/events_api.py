"""easel.v1.Events: the facts for outsiders, by stream, by NATS credentials, by webhook."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from easel_contracts.errors import FieldError, InvalidInput, Refused, Unavailable
from easel_contracts.ids import DEFAULT_WORKSPACE, uuid7
from easel_kit.clock import Clock
from easel_kit.grpc import caller
from easel_kit.streams import DEAD, FACTS
from easel_kit.telemetry import get_logger
from easel_monitor.decide import events
from easel_monitor.decide import webhooks as rules
from easel_monitor.decide.events import EventView, Stored
from easel_monitor.decide.explain_events import explain
from easel_monitor.explaining import gather
from easel_monitor.factlog import FactLog, Head
from easel_monitor.model import Webhook
from easel_monitor.settings import MonitorSettings
from easel_monitor.store import Webhooks
from easel_monitor.vault import Vault
from easel_proto.v1 import common_pb2, events_pb2, events_pb2_grpc

WEBHOOKS_MOST = 100
"""Per workspace."""
AGAIN_S = 1.0

log = get_logger("events")


class Channel:
    """A stream with its head: FACTS or DEAD."""

    def __init__(self, source: FactLog, head: Head, everything: str) -> None:
        self.source, self.head, self.everything = source, head, everything


class EventsApi(events_pb2_grpc.EventsServicer):
    """Serves Events; webhooks are delivered elsewhere (webhooks.Deliverer)."""

    def __init__(
        self,
        facts: Channel,
        dead: Channel,
        store: Webhooks,
        vault: Vault,
        settings: MonitorSettings,
        clock: Clock,
        wake: Callable[[str], None],
    ) -> None:
        self._channels = {FACTS: facts, DEAD: dead}
        self._store, self._vault, self._settings, self._clock = store, vault, settings, clock
        self._wake = wake

    async def Watch(self, request: events_pb2.WatchEventsRequest, context: Any) -> AsyncIterator[events_pb2.Event]:
        """Stored facts first, then new ones as they come; a watcher resumes with its last sequence + 1."""
        wanted = events.filter_of(request.workspace, request.entity, request.key)
        channel = self._channels[DEAD if request.dead else FACTS]
        subject = channel.everything if request.dead else wanted.subject
        newest = await channel.source.last(channel.everything)
        head = newest.sequence if newest else 0
        start = await self._start(channel, request.from_sequence, head)
        if start is None:
            start = head + 1
            for stored in await channel.source.tail(head, subject, events.check_tail(request.tail)):
                if not request.dead or events.is_wanted(stored, wanted):
                    yield _event(events.view(stored))
        async for stored in self._from(channel, subject, start, head, follow=request.follow):
            if not request.dead or events.is_wanted(stored, wanted):
                yield _event(events.view(stored))

    async def CreateToken(self, request: events_pb2.CreateEventsTokenRequest, context: Any) -> events_pb2.EventsToken:
        """The read-only user's credentials; the audit says who got them."""
        file = self._settings.events_seed_file
        if file is None:
            raise Refused(
                "NO_EVENTS_USER", "this platform has no read-only NATS user for outsiders",
                "EASEL_EVENTS_SEED_FILE names its seed; `easel up` sets it up by itself",
            )  # fmt: skip
        wanted = events.filter_of(request.workspace, "", "")
        seed = _read(file)
        await self._store.token_given(wanted.workspace, caller())
        log.info("events token given", actor=caller().actor, source=caller().source, request_id=caller().request_id)
        return events_pb2.EventsToken(
            nats_url=self._settings.events_nats_url or self._settings.nats_url,
            nkey_seed=seed,
            stream=FACTS,
            subject=f"easel.fact.{wanted.workspace}.>",
            inbox_prefix=self._settings.events_inbox_prefix,
        )

    async def CreateWebhook(self, request: events_pb2.CreateWebhookRequest, context: Any) -> events_pb2.Webhook:
        """A webhook that gets every matching fact from now on; its secret is shown in this answer only."""
        wanted = events.filter_of(request.workspace, request.entity, request.key)
        url = self._checked(request.url)
        if await self._store.count(wanted.workspace) >= WEBHOOKS_MOST:
            raise Refused("TOO_MANY_WEBHOOKS", f"a workspace has at most {WEBHOOKS_MOST} webhooks", "delete one first")
        identity = uuid7()
        facts = self._channels[FACTS]
        newest = await facts.source.last(facts.everything)
        secret = rules.secret_of(secrets.token_bytes(rules.SECRET_BYTES))
        made = await self._store.create(
            Webhook(
                id=identity,
                workspace=wanted.workspace,
                url=url,
                entity=wanted.entity,
                key=wanted.key,
                secret_sealed=self._vault.seal(secret, identity),
                delivered_sequence=newest.sequence if newest else 0,
                failures=0,
                last_error="",
                lost="",
                row_version=1,
            ),
            request.idempotency_key,
            caller(),
        )
        log.info("webhook created", webhook=made.id, actor=caller().actor, request_id=caller().request_id)
        self._wake(made.id)
        answer = _webhook(made)
        answer.secret = self._vault.open(made.secret_sealed, made.id)
        return answer

    async def ListWebhooks(
        self, request: events_pb2.ListWebhooksRequest, context: Any
    ) -> events_pb2.ListWebhooksResponse:
        """All of a workspace, without secrets, with how far each is and what went wrong last."""
        found = await self._store.all(request.workspace or DEFAULT_WORKSPACE)
        return events_pb2.ListWebhooksResponse(webhooks=[_webhook(w) for w in found])

    async def DeleteWebhook(
        self, request: events_pb2.DeleteWebhookRequest, context: Any
    ) -> events_pb2.DeleteWebhookResponse:
        """Ends it; what is under way may still arrive."""
        await self._store.delete(request.workspace or DEFAULT_WORKSPACE, request.id, caller())
        log.info("webhook deleted", webhook=request.id, actor=caller().actor, request_id=caller().request_id)
        return events_pb2.DeleteWebhookResponse()

    async def Explain(self, request: common_pb2.ExplainRequest, context: Any) -> common_pb2.Explanation:
        """What the streams hold, what was given up, which webhooks are behind."""
        facts, dead = self._channels[FACTS], self._channels[DEAD]
        workspace = request.workspace or DEFAULT_WORKSPACE
        known = await gather(workspace, facts.source, dead.source, dead.everything, self._store, self._clock)
        lines = [common_pb2.Why(code=line.code, message=line.message, hint=line.hint) for line in explain(known)]
        at = Timestamp()
        at.FromDatetime(self._clock.now())
        return common_pb2.Explanation(part="monitor", lines=lines, at=at)

    def _checked(self, url: str) -> str:
        literal = rules.literal_address(rules.check_url(url))
        if literal and (why := rules.refusal(literal, allow_link_local=self._settings.webhook_allow_link_local)):
            wrong = FieldError(path="url", code="NOT_ALLOWED", message=why)
            raise InvalidInput(f"the webhook cannot be made: {why}", (wrong,))
        return url

    async def _start(self, channel: Channel, from_sequence: int, head: int) -> int | None:
        """Where to read from; None: at the tail. Raises where that would leave a gap unsaid."""
        if from_sequence == 0:
            return None
        if from_sequence > head + 1:
            message = f"{from_sequence} is not there yet, the newest is {head}"
            raise InvalidInput(
                f"from_sequence: {message}",
                (FieldError(path="from_sequence", code="OUT_OF_RANGE", message=message),),
                hint="the stream may have begun anew; read it from 1",
            )
        oldest, _ = await channel.source.bounds()
        if 1 < from_sequence < oldest:
            raise Refused(
                "SEQUENCE_EXPIRED", f"facts {from_sequence} to {oldest - 1} are no longer kept",
                f"read on from {oldest}, and ask the owners' List for what was missed", oldest=str(oldest),
            )  # fmt: skip
        return from_sequence

    async def _from(
        self, channel: Channel, subject: str, start: int, head: int, *, follow: bool
    ) -> AsyncIterator[Stored]:
        """Messages in order from `start`; up to `head`, or for ever. Outlives a restart of NATS."""
        while start <= head or follow:
            try:
                batch = await channel.source.read(start, subject)
            except Unavailable as error:
                if not follow:
                    raise
                log.warning("watch waits for the stream", error=error.message)
                await self._clock.sleep(AGAIN_S)
                continue
            for stored in batch:
                if not follow and stored.sequence > head:
                    return
                yield stored
                start = stored.sequence + 1
            if batch:
                continue
            if not follow:
                return
            await channel.head.wait_beyond(head)
            head = channel.head.sequence


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise Unavailable("NO_EVENTS_SEED", f"the seed of the events user cannot be read: {error.strerror}") from error


def _event(view: EventView) -> events_pb2.Event:
    at = Timestamp()
    at.FromDatetime(view.at)
    return events_pb2.Event(
        sequence=view.sequence,
        id=view.id,
        type=view.type,
        subject=view.subject,
        key=view.key,
        at=at,
        reason=view.reason,
        message=view.message,
        actor=view.actor,
        data_json=view.data_json,
        error=view.error,
        traceparent=view.traceparent,
    )


def _webhook(webhook: Webhook) -> events_pb2.Webhook:
    return events_pb2.Webhook(
        id=webhook.id,
        url=webhook.url,
        entity=webhook.entity,
        key=webhook.key,
        delivered_sequence=webhook.delivered_sequence,
        failures=webhook.failures,
        last_error="; ".join(text for text in (webhook.lost, webhook.last_error) if text),
    )
