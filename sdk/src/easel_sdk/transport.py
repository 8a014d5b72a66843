"""Calls to the control listener: channel, key, trace, time limits, and when to try again.

Decides that a call is repeated only where that is safe: a read, or a mutation that carries an idempotency key
(the platform answers the same key with the same answer), and only when the platform said "unavailable". It never
repeats a call that ran out of time, and never sends the key to a proxy from the environment when the platform
is on this machine.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from easel_sdk.discovery import Target
from easel_sdk.errors import CannotReach, from_rpc, is_refused_connection

R = TypeVar("R")

CALL_TIMEOUT_S = 30.0
RETRY_WINDOW_S = 6.0
"""How long a part of the platform may be away (a restart takes a second or two) before a call fails."""
REFUSED_WINDOW_S = 1.0
"""The same where nothing listens at the address at all."""

Metadata = tuple[tuple[str, str], ...]


class Transport:
    """A gRPC channel per event loop, opened when first used."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trace_id = secrets.token_hex(16)

    @property
    def where(self) -> str:
        """The platform's name in messages."""
        return self.target.address

    def channel(self) -> grpc.aio.Channel:
        """The channel of the running loop."""
        loop = asyncio.get_running_loop()
        if self._channel is None or self._loop is not loop:
            self._channel, self._loop = _open(self.target), loop
        return self._channel

    async def close(self) -> None:
        """Closes the channel; the next call opens one again."""
        channel, self._channel = self._channel, None
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close(None)

    async def call(
        self,
        invoke: Callable[[float, Metadata], Awaitable[R]],
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        retry: bool = True,
    ) -> R:
        """The answer of one unary call; `invoke(timeout_s, metadata)` makes it.

        `retry`: the call is a read or carries an idempotency key. Raises the errors of easel_sdk.errors.
        """
        started, pause_s, metadata = time.monotonic(), 0.05, self.metadata()
        while True:
            spent_s = time.monotonic() - started
            try:
                return await invoke(max(timeout_s - spent_s, 0.05), metadata)
            except grpc.aio.AioRpcError as error:
                spent_s = time.monotonic() - started
                if not retry or not _may_repeat(error, spent_s, timeout_s):
                    raise from_rpc(error, self.where) from error
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.3))
            pause_s = min(pause_s * 2, 1.0)

    async def stream(self, invoke: Callable[[Metadata], AsyncIterator[R]]) -> AsyncIterator[R]:
        """The messages of one streaming call, until it ends or the caller leaves. Not repeated."""
        call = invoke(self.metadata())
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.where) from error
        finally:
            cancel = getattr(call, "cancel", None)
            if cancel is not None:
                cancel()

    def metadata(self) -> Metadata:
        """Access key, W3C trace context and request id of a call."""
        key = self.target.access_key
        return (
            ("authorization", f"Bearer {key}"),
            ("traceparent", _active_traceparent() or f"00-{self._trace_id}-{secrets.token_hex(8)}-01"),
            ("x-request-id", secrets.token_hex(8)),
        )


def _may_repeat(error: grpc.aio.AioRpcError, spent_s: float, timeout_s: float) -> bool:
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    window_s = REFUSED_WINDOW_S if is_refused_connection(error) else RETRY_WINDOW_S
    return spent_s < min(window_s, timeout_s)


def _open(target: Target) -> grpc.aio.Channel:
    options = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_receive_message_length", 64 * 1024 * 1024),
        ("grpc.max_metadata_size", 64 * 1024),  # errors travel in trailers
        ("grpc.enable_http_proxy", 0 if target.is_loopback else 1),
    ]
    if not target.tls:
        return grpc.aio.insecure_channel(target.address, options=options)
    return grpc.aio.secure_channel(
        target.address, grpc.ssl_channel_credentials(root_certificates=_authorities(target)), options=options
    )


def _authorities(target: Target) -> bytes | None:
    if target.ca_file is None:
        return None
    try:
        return Path(target.ca_file).expanduser().read_bytes()
    except OSError as error:
        raise CannotReach(
            "BAD_CA_FILE", f"cannot read the authority's certificate {target.ca_file}: {error.strerror}",
            "EASEL_CA_FILE names a PEM file",
        ) from error  # fmt: skip


def _active_traceparent() -> str | None:
    """The caller's own trace, where the program uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
