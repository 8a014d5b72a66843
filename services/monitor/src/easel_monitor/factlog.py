"""Reads a stream by sequence with JetStream's direct gets: no consumer, so nothing to lose, leave behind or go silent.

A reader's whole state is the next sequence it wants; after a restart of NATS or of this process it asks again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from easel_contracts.errors import Unavailable
from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_monitor.decide.events import Stored

BATCH = 256
TIMEOUT_S = 5.0
BATCH_MOST_BYTES = 4 * 1024 * 1024

log = get_logger("factlog")


class FactLog:
    """One stream, read-only."""

    def __init__(self, client: Client, stream: str) -> None:
        self._client, self.stream = client, stream
        self._api = f"$JS.API.DIRECT.GET.{stream}"

    async def read(self, from_sequence: int, subject: str, most: int = BATCH) -> list[Stored]:
        """Up to `most` messages of a subject (wildcards allowed) from a sequence on, in order; empty: none yet.

        Raises Unavailable where NATS or the stream does not answer.
        """
        request = {"seq": max(from_sequence, 1), "batch": most, "max_bytes": BATCH_MOST_BYTES, "next_by_subj": subject}
        found: list[Stored] = []
        async for message in self._answers(request):
            found.append(_stored(message))
        return found

    async def bounds(self) -> tuple[int, int]:
        """The oldest and the newest sequence, as the stream's leader knows them. Raises Unavailable."""
        try:
            info = await self._client.jetstream(timeout=TIMEOUT_S).stream_info(self.stream)
        except (nats.errors.Error, TimeoutError) as error:
            raise _away(self.stream, error) from error
        return info.state.first_seq, info.state.last_seq

    async def last(self, subject: str) -> Stored | None:
        """The newest message; None when the stream holds nothing. Raises Unavailable."""
        message = await self._request({"last_by_subj": subject})
        status = (message.headers or {}).get("Status", "")
        if status == "404":
            return None
        if status:
            raise Unavailable("STREAM_UNAVAILABLE", f"stream {self.stream} answers {status}", "try again in a moment")
        return _stored(message)

    async def tail(self, last_sequence: int, subject: str, count: int) -> list[Stored]:
        """The `count` newest messages of a subject up to a sequence, oldest first."""
        if count <= 0 or last_sequence <= 0:
            return []
        reach = 4 * count
        while True:
            start = max(1, last_sequence - reach + 1)
            found = await self._all(start, last_sequence, subject)
            if len(found) >= count or start == 1:
                return found[-count:]
            reach *= 8

    async def _all(self, start: int, end: int, subject: str) -> list[Stored]:
        found: list[Stored] = []
        while start <= end:
            batch = await self.read(start, subject)
            found += [message for message in batch if message.sequence <= end]
            if not batch:
                break
            start = batch[-1].sequence + 1
        return found

    async def _answers(self, request: dict[str, Any]) -> AsyncIterator[Msg]:
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(self._api, json.dumps(request).encode(), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=TIMEOUT_S)
                status = (message.headers or {}).get("Status", "")
                if status in ("204", "404"):
                    return
                if status:
                    raise Unavailable("STREAM_UNAVAILABLE", f"stream {self.stream} answers {status}", "try again")
                yield message
        except (nats.errors.Error, TimeoutError) as error:
            raise _away(self.stream, error) from error
        finally:
            with suppress(nats.errors.Error):  # closed with the connection
                await subscription.unsubscribe()

    async def _request(self, request: dict[str, Any]) -> Msg:
        try:
            return await self._client.request(self._api, json.dumps(request).encode(), timeout=TIMEOUT_S)
        except (nats.errors.Error, TimeoutError) as error:
            raise _away(self.stream, error) from error


class Head:
    """The newest sequence of a stream, told to all who wait for more. Woken by the messages themselves.

    A core subscription hears a message at about the time JetStream stores it, perhaps a moment before: so after a
    wake-up the stream is asked until it holds the message that was heard, for at most SETTLE_S (a repeat that
    JetStream dropped never appears). A slow poll finds what was missed.
    """

    SETTLE_S = 0.5

    def __init__(self, source: FactLog, client: Client, subject: str, clock: Clock, poll_s: float = 5.0) -> None:
        self._source, self._client, self._subject = source, client, subject
        self._clock, self._poll_s = clock, poll_s
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._heard = ""
        self.sequence = 0
        """0: the stream is empty, or was not reached yet."""
        self.reached = False

    async def wait_beyond(self, sequence: int) -> None:
        """Returns when the stream holds something newer."""
        while self.sequence <= sequence:
            await self._changed.wait()

    async def run(self) -> None:
        """Follows the stream for ever."""
        await self._client.subscribe(self._subject, cb=self._on_message)
        await self.look()
        while True:
            woken = await self._until_woken()
            self._woken.clear()
            await (self._settle() if woken else self.look())

    async def look(self) -> str:
        """Asks once; gives the newest message's id (empty: there is none, or the stream does not answer)."""
        try:
            newest = await self._source.last(self._subject)
        except Unavailable as error:
            log.warning("stream not reached", stream=self._source.stream, error=error.message)
            return ""
        self.reached = True
        sequence = newest.sequence if newest else 0
        if sequence > self.sequence:
            self.sequence = sequence
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        return newest.id if newest else ""

    async def _until_woken(self) -> bool:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True

    async def _settle(self) -> None:
        deadline = self._clock.monotonic() + self.SETTLE_S
        pause_s = 0.001
        while await self.look() != self._heard and self._clock.monotonic() < deadline:
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.1)

    async def _on_message(self, message: Msg) -> None:
        self._heard = (message.headers or {}).get("Nats-Msg-Id", "")
        self._woken.set()


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    error = headers.get("Easel-Error", "")
    if error and (consumer := headers.get("Easel-Consumer")):
        error = f"{consumer}: {error}"
    return Stored(
        sequence=int(headers["Nats-Sequence"]),
        id=headers.get("Nats-Msg-Id", ""),
        subject=headers.get("Easel-Subject") or headers["Nats-Subject"],
        at=_time(headers["Nats-Time-Stamp"]),
        payload=message.data,
        error=error,
    )


def _time(text: str) -> datetime:
    """RFC 3339 with up to nine digits of a second, of which Python reads six."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6].ljust(6, '0')}+00:00")


def _away(stream: str, error: Exception) -> Unavailable:
    return Unavailable("STREAM_UNAVAILABLE", f"stream {stream} does not answer: {error!r}", "try again in a moment")
