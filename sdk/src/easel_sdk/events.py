"""Events: the platform's facts as they happen, and ways to have them sent elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from easel_contracts.ids import uuid7
from easel_proto.v1 import events_pb2 as pb
from easel_proto.v1.common_pb2 import ExplainRequest, Explanation
from easel_proto.v1.events_pb2_grpc import EventsStub
from easel_sdk.errors import Unavailable
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.events_pb2_grpc import EventsAsyncStub

_LONGEST_PAUSE_S = 5.0


class EventsApi:
    """Calls to `easel.v1.Events`."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def watch(
        self,
        *,
        entity: str = "",
        key: str = "",
        from_sequence: int = 0,
        tail: int = 0,
        follow: bool = True,
        dead: bool = False,
        on_gap: Callable[[Unavailable], None] | None = None,
    ) -> AsyncIterator[pb.Event]:
        """Events that match; with `follow` those to come too, without end.

        Starts at `from_sequence`, or with the `tail` newest ones. A broken stream is taken up again after the last
        event that came, none twice and none left out; `on_gap` is told each time.
        """
        seen, pause_s = 0, 0.1
        while True:
            request = pb.WatchEventsRequest(
                workspace=self._workspace, entity=entity, key=key, from_sequence=seen + 1 if seen else from_sequence,
                tail=0 if seen else tail, follow=follow, dead=dead,
            )  # fmt: skip
            try:
                async for event in self._open(request):
                    if event.sequence > seen:
                        seen, pause_s = event.sequence, 0.1
                        yield event
                if not follow:
                    return
            except Unavailable as error:
                if not follow:
                    raise
                if on_gap is not None:
                    on_gap(error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def create_token(self) -> pb.EventsToken:
        """Read-only NATS credentials for the public subjects."""
        request = pb.CreateEventsTokenRequest(workspace=self._workspace)
        return await self._transport.call(
            lambda t, m: self._stub().CreateToken(request, timeout=t, metadata=m), retry=False
        )

    async def create_webhook(
        self, url: str, *, entity: str = "", key: str = "", idempotency_key: str | None = None
    ) -> pb.Webhook:
        """Has matching events posted to `url` as CloudEvents; the answer's `secret` signs them and is shown once."""
        request = pb.CreateWebhookRequest(workspace=self._workspace, url=url, entity=entity, key=key,
                                          idempotency_key=idempotency_key or uuid7())  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().CreateWebhook(request, timeout=t, metadata=m))

    async def list_webhooks(self) -> list[pb.Webhook]:
        """Every webhook, without its secret."""
        request = pb.ListWebhooksRequest(workspace=self._workspace)
        answer: Any = await self._transport.call(lambda t, m: self._stub().ListWebhooks(request, timeout=t, metadata=m))
        return [*answer.webhooks]

    async def delete_webhook(self, id: str) -> None:
        """Ends a webhook."""
        request = pb.DeleteWebhookRequest(workspace=self._workspace, id=id)
        await self._transport.call(lambda t, m: self._stub().DeleteWebhook(request, timeout=t, metadata=m), retry=False)

    def _open(self, request: pb.WatchEventsRequest) -> AsyncIterator[pb.Event]:
        return self._transport.stream(lambda m: aiter(self._stub().Watch(request, metadata=m)))

    async def explain(self) -> Explanation:
        """What the streams hold, what was given up, which webhooks are behind."""
        request = ExplainRequest(workspace=self._workspace)
        return await self._transport.call(lambda t, m: self._stub().Explain(request, timeout=t, metadata=m))

    def _stub(self) -> EventsAsyncStub:
        return EventsStub(self._transport.channel())
