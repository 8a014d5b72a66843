"""Errors of the SDK: those of easel_contracts.errors, rebuilt from what came over gRPC, and the client's own.

EaselError
├── InvalidInput NotFound AlreadyExists Conflict Refused      as the platform raised them
├── Unauthenticated
│   └── NoAccessKey    the key is missing or unreadable here
├── Unavailable         a part of the platform does not answer
│   └── CannotReach     nothing of it answers, or it was not found
├── TimedOut            the time given was used up; what was started may go on
├── ServiceFailed       the service came to a state it will not leave by itself
└── PredictFailed       a call to a service was not answered with success
"""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import msgspec
from google.rpc import error_details_pb2, status_pb2

from easel_contracts.errors import (
    AlreadyExists,
    Conflict,
    EaselError,
    FieldError,
    InvalidInput,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)

__all__ = [
    "AlreadyExists",
    "CannotReach",
    "Conflict",
    "EaselError",
    "FieldError",
    "InvalidInput",
    "NoAccessKey",
    "NotFound",
    "PredictFailed",
    "Refused",
    "ServiceFailed",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "from_rpc",
]


class CannotReach(Unavailable):
    """No platform was found, or nothing answers at its address."""


class NoAccessKey(Unauthenticated):
    """There is no access key to call the platform with."""


class TimedOut(EaselError):
    """The time given was used up. What was asked for may still happen."""


class ServiceFailed(EaselError):
    """A service came to a state it will not leave by itself; `log_lines` are its replicas' last ones."""

    def __init__(self, code: str, message: str, hint: str = "", log_lines: tuple[str, ...] = ()) -> None:
        super().__init__(code, message, hint)
        self.log_lines = log_lines


class PredictFailed(EaselError):
    """A call to a service was answered with an error. `status` is the HTTP status, `body` what came with it."""

    def __init__(self, code: str, message: str, hint: str = "", *, status: int = 0, body: bytes = b"",
                 headers: dict[str, str] | None = None) -> None:  # fmt: skip
        super().__init__(code, message, hint)
        self.status = status
        self.body = body
        self.headers = headers or {}


_KINDS: dict[str, type[EaselError]] = {
    kind.__name__: kind
    for kind in (InvalidInput, NotFound, AlreadyExists, Conflict, Unauthenticated, Refused, Unavailable)
}

_BY_STATUS: dict[grpc.StatusCode, type[EaselError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.UNIMPLEMENTED: Refused,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}

_DETAILS = "grpc-status-details-bin"


def from_rpc(error: grpc.aio.AioRpcError, where: str) -> EaselError:
    """The error that the platform raised, or one that says what is wrong between here and there.

    `where` names the platform, for messages.
    """
    status = _status(error)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status is not None else ():
        for known in (info, bad_request):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    if not info.reason:
        return _without_details(error, where)
    metadata = dict(info.metadata)
    hint, fields = metadata.pop("hint", ""), metadata.pop("fields", "")
    message = error.details() or info.reason
    kind = _KINDS.get(metadata.pop("kind", "")) or _BY_STATUS.get(error.code(), EaselError)
    if error.code() is grpc.StatusCode.INTERNAL:
        kind = EaselError
    if kind is InvalidInput:
        return InvalidInput(message, _fields(fields, bad_request), code=info.reason, hint=hint)
    rest = {key: value for key, value in metadata.items() if key not in ("code", "message")}
    return kind(info.reason, message, hint, **rest)


_TLS_SIGNS = ("handshake failed", "Hostname Verification", "CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")


def is_refused_connection(error: grpc.aio.AioRpcError) -> bool:
    """Whether nothing listens at the address."""
    text = (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE and (
        "failed to connect" in text or "connection refused" in text or "no such file" in text
    )


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The google.rpc.Status in the trailing metadata."""
    trailers: Any = error.trailing_metadata() or ()
    raw = next((value for key, value in trailers if key == _DETAILS), None)
    return status_pb2.Status.FromString(raw) if isinstance(raw, bytes) else None


def _fields(encoded: str, bad_request: error_details_pb2.BadRequest) -> tuple[FieldError, ...]:
    """Every field that is wrong: as Easel encodes them (with hint, line, column), else as BadRequest has them."""
    if encoded:
        return msgspec.json.decode(encoded, type=tuple[FieldError, ...])
    return tuple(FieldError(path=v.field, code=v.reason, message=v.description) for v in bad_request.field_violations)


def _without_details(error: grpc.aio.AioRpcError, where: str) -> EaselError:
    """An error that no part of Easel wrote: from gRPC itself, a proxy, or something else at the address."""
    status, text = error.code(), error.details() or ""
    if status is grpc.StatusCode.UNAVAILABLE and any(sign in text for sign in _TLS_SIGNS):
        return CannotReach(
            "TLS_FAILED", f"no TLS connection to {where}: {text.rpartition('last error: ')[2]}",
            "EASEL_CA_FILE names the PEM file of the authority that signed the certificate, and the server's address "
            "must be one of the names in it; https://HOST:PORT asks for TLS, HOST:PORT for none",
        )  # fmt: skip
    if is_refused_connection(error) and "Socket closed" in text:
        return CannotReach("CANNOT_CONNECT", f"what answers at {where} closes the connection at once",
                           f"a listener with TLS wants https:// in front: --server https://{where}")  # fmt: skip
    if is_refused_connection(error):
        return CannotReach(
            "CANNOT_CONNECT",
            f"nothing answers at {where}",
            "is the platform up? `easel status` shows its processes, `easel up` starts it",
        )
    if status is grpc.StatusCode.UNIMPLEMENTED and "no such service: /easel." in text:
        return CannotReach(
            "NOT_A_CONTROL_PORT",
            f"what answers at {where} is a platform's data listener, for calls to models",
            "name the control port (8081 by default), not the data port",
        )
    if status is grpc.StatusCode.UNIMPLEMENTED and "http2 header" in text.lower():
        return CannotReach(
            "NOT_A_CONTROL_PORT",
            f"what answers at {where} is not a platform's control listener ({text})",
            "name the control port (8081 by default), not the data port",
        )
    if status is grpc.StatusCode.UNAVAILABLE:
        return Unavailable("UNAVAILABLE", f"a part of the platform at {where} does not answer: {text}",
                           "it may be restarting: `easel status` shows its processes")  # fmt: skip
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut("DEADLINE_EXCEEDED", f"no answer from {where} in time",
                        "what was asked may still happen: look before asking again")  # fmt: skip
    message = text or f"the platform at {where} answered {status.name}"
    kind = _BY_STATUS.get(status, EaselError)
    return InvalidInput(message) if kind is InvalidInput else kind(status.name, message)
