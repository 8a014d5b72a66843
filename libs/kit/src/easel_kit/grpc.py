"""gRPC as every process serves and calls it: authentication, errors, request ids, traces, health, reflection.

`/easel.v1.*` needs an access key, `/easel.internal.v1.*` a process token; health and reflection are free.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import Struct

from easel_contracts import errors
from easel_contracts.ids import uuid7
from easel_kit.grpc_errors import as_easel_error, to_status
from easel_kit.introspection import Health, add_reflection
from easel_kit.keyring import Keyring
from easel_kit.telemetry import current_traceparent, get_logger, span_from

MAX_METADATA_BYTES = 64 * 1024
TOKEN_HEADER = "easel-process-token"

log = get_logger("grpc")

_SERVER_OPTIONS = [
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class Caller(Struct, frozen=True):
    """Who makes the call that is being handled."""

    actor: str
    """Access key id, or the name of a process."""
    source: str
    """Peer address as the first proxy saw it."""
    request_id: str


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who makes the call that is being handled; only inside a handler."""
    return _caller.get()


class Server:
    """One gRPC server on one address."""

    def __init__(self, address: str, keyring: Keyring) -> None:
        self.address = address
        self._keyring = keyring
        self._server = grpc.aio.server(interceptors=[_Guard(keyring)], options=_SERVER_OPTIONS)
        self._names: list[str] = []
        self._described: list[str] = []
        self._health = Health()

    def add(self, register: Callable[[Any, Any], None], servicer: Any, full_name: str) -> None:
        """Adds a servicer by its generated `add_XServicer_to_server`; full_name e.g. easel.v1.Services."""
        register(servicer, self._server)
        self._names.append(full_name)

    def describe(self, full_name: str, owner: grpc.aio.Channel) -> None:
        """Has reflection and health also speak of an API that another process serves at the same outside address."""
        self._described.append(full_name)
        self._health.relay(full_name, owner)

    async def start(self) -> None:
        """Binds and serves; raises OSError where the address cannot be bound."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        public = (name for name in self._names if not name.startswith("easel.internal."))
        names = dict.fromkeys([*public, *self._described])
        add_reflection(self._server, names)
        try:
            self._server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.address}: {error}") from error
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Takes no new call, lets running ones end within the grace period."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


def channel(
    address: str, process_token: str | None = None, *, options: Mapping[str, Any] | None = None
) -> grpc.aio.Channel:
    """A channel to another process, carrying this process's token and trace context on every call."""
    settings: dict[str, Any] = {
        "grpc.max_metadata_size": MAX_METADATA_BYTES,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.min_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 2_000,
        "grpc.keepalive_time_ms": 10_000,
        "grpc.keepalive_timeout_ms": 5_000,
        "grpc.default_authority": "localhost",
        **(options or {}),
    }
    interceptors: list[Any] = [_UnaryToken(process_token), _StreamToken(process_token)]
    return grpc.aio.insecure_channel(
        address, options=list(settings.items()),
        interceptors=interceptors,
    )  # fmt: skip


class _Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Authenticates, names the request, continues the trace, turns exceptions into statuses."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        method = details.method
        if handler is None or not method.startswith(("/easel.v1.", "/easel.internal.v1.")):
            return handler
        metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        return _wrapped(handler, method, metadata, self._keyring)


def _wrapped(handler: Any, method: str, metadata: dict[str, str], keyring: Keyring) -> Any:
    def enter(context: Any) -> None:
        _caller.set(_authenticate(method, metadata, keyring, context.peer()))

    async def unary(request: Any, context: Any) -> Any:
        try:
            enter(context)
            with span_from(metadata.get("traceparent"), method):
                behaviour = handler.unary_unary or handler.stream_unary
                return await behaviour(request, context)
        except Exception as error:
            await _abort(context, method, error)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            enter(context)
            with span_from(metadata.get("traceparent"), method):
                behaviour = handler.unary_stream or handler.stream_stream
                async for answer in behaviour(request, context):
                    yield answer
        except Exception as error:
            await _abort(context, method, error)

    kind = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    behaviour: Any = stream if handler.response_streaming else unary
    return kind(behaviour, handler.request_deserializer, handler.response_serializer)


def _authenticate(method: str, metadata: dict[str, str], keyring: Keyring, peer: str) -> Caller:
    source = source_of(metadata, peer)
    request_id = metadata.get("x-request-id") or uuid7()
    if method.startswith("/easel.internal.v1."):
        actor = keyring.process(metadata.get(TOKEN_HEADER, ""))
        if actor is None:
            raise errors.Unauthenticated("UNKNOWN_PROCESS", f"{method} is for Easel's own processes")
        return Caller(actor, source, request_id)
    given = metadata.get("authorization", "")
    if not given:
        raise errors.Unauthenticated(
            "NO_ACCESS_KEY", "this API needs an access key: metadata or header `authorization: Bearer <key>`",
            "`easel up` wrote one to keys/access-key in its home",
        )  # fmt: skip
    actor = keyring.user(given.removeprefix("Bearer ").strip())
    if actor is None:
        raise errors.Unauthenticated(
            "WRONG_ACCESS_KEY", "the access key is not known here, or was revoked",
            "key and server must belong together: --home, or --server and --access-key",
        )  # fmt: skip
    return Caller(actor, source, request_id)


def source_of(metadata: Mapping[str, str], peer: str) -> str:
    """Where a call came from, for the audit. A caller may write x-forwarded-for itself: only what Envoy adds counts.

    Envoy overwrites x-envoy-external-address, and appends the peer to x-forwarded-for (for a loopback peer, its own
    address).
    """
    return metadata.get("x-envoy-external-address") or metadata.get("x-forwarded-for", peer).split(",")[-1].strip()


async def _abort(context: Any, method: str, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    known = as_easel_error(error)
    if known is None:
        log.error("call failed", method=method, error=repr(error), exc_info=error)
        known = errors.EaselError("INTERNAL", f"a fault of Easel: {type(error).__name__}: {error}",
                                  "please report it, with the log of this process")  # fmt: skip
        status = to_status(known)
        status.code = grpc.StatusCode.INTERNAL.value[0]
    else:
        status = to_status(known)
    await _abort_with(context, status)


async def _abort_with(context: Any, status: status_pb2.Status) -> None:
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    await context.abort(
        code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),)
    )


def _with_token(details: Any, token: str | None) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if token:
        metadata.add(TOKEN_HEADER, token)
    if traceparent := current_traceparent():
        metadata.add("traceparent", traceparent)
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class _UnaryToken(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with_token(details, self._token), request)


class _StreamToken(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_with_token(details, self._token), request)
