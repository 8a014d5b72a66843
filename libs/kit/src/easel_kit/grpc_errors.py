"""EaselErrors as google.rpc.Status and back: ErrorInfo (reason, hint), BadRequest (fields)."""

from __future__ import annotations

from typing import Any

import asyncpg
import grpc
import grpc.aio
import msgspec
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from easel_contracts import errors
from easel_contracts.errors import EaselError, FieldError, InvalidInput
from easel_kit.db import UNREACHABLE, Stale

DOMAIN = "easel"
MAX_FIELDS = 40
"""Field errors in one answer; trailers have a size limit."""

CODES: dict[type[EaselError], int] = {
    errors.InvalidInput: code_pb2.INVALID_ARGUMENT,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.AlreadyExists: code_pb2.ALREADY_EXISTS,
    errors.Conflict: code_pb2.FAILED_PRECONDITION,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.Refused: code_pb2.RESOURCE_EXHAUSTED,
    errors.Unavailable: code_pb2.UNAVAILABLE,
}


def to_status(error: EaselError) -> status_pb2.Status:
    """The error as it travels. ErrorInfo.metadata: `hint`, `kind` (class), `fields` (JSON list of FieldError)."""
    kind = next((k for k in type(error).__mro__ if k in CODES), errors.Refused)
    metadata = {"kind": kind.__name__, **error.metadata}
    if error.hint:
        metadata["hint"] = error.hint
    details: list[any_pb2.Any] = []
    if isinstance(error, InvalidInput) and error.fields:
        shown = error.fields[:MAX_FIELDS]
        metadata["fields"] = msgspec.json.encode(shown).decode()
        bad = error_details_pb2.BadRequest()
        for field in shown:
            bad.field_violations.add(field=field.path, description=field.message)
        details.append(_any(bad))
    details.insert(0, _any(error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata=metadata)))
    return status_pb2.Status(code=CODES[kind], message=error.message, details=details)


def from_rpc(error: grpc.aio.AioRpcError) -> EaselError:
    """The EaselError that the other side raised, or Unavailable/Refused for what gRPC itself says."""
    trailers: Any = error.trailing_metadata() or ()
    details = dict(trailers).get("grpc-status-details-bin")
    if isinstance(details, bytes):
        return from_status(status_pb2.Status.FromString(details))
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return errors.Unavailable("UNAVAILABLE", error.details() or "the server does not answer")
    return errors.Refused(error.code().name, error.details() or error.code().name)


def from_status(status: status_pb2.Status) -> EaselError:
    """Inverse of to_status."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    metadata = dict(info.metadata)
    name = metadata.pop("kind", "")
    kind = next((k for k in CODES if k.__name__ == name), errors.Refused)
    hint, fields = metadata.pop("hint", ""), metadata.pop("fields", "")
    if issubclass(kind, InvalidInput):
        decoded = msgspec.json.decode(fields, type=tuple[FieldError, ...]) if fields else ()
        return InvalidInput(status.message, decoded, code=info.reason or "INVALID_INPUT", hint=hint)
    return kind(info.reason or "UNKNOWN", status.message, hint, **metadata)


def as_easel_error(error: Exception) -> EaselError | None:
    """What a handler raised, as an error with a meaning for users; None: it is a fault of ours."""
    if isinstance(error, EaselError):
        return error
    if isinstance(error, Stale):
        return errors.Conflict("CHANGED_MEANWHILE", "somebody else changed it at the same time", "try again")
    if isinstance(error, asyncpg.DiskFullError):
        return errors.Refused("DISK_FULL", "the disk is full: no change is accepted, services go on", "free some space")
    if isinstance(error, (*UNREACHABLE, TimeoutError)):
        return errors.Unavailable("STORE_UNAVAILABLE", "the state store does not answer now", "try again in a moment")
    return None


def _any(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
