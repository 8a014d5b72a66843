"""Says what went wrong with an object store, and what to change. Never with a driver's own text: it may name a key."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from easel_agent.sources.model import CannotFetch, chain
from easel_agent.sources.threads import TookTooLong

Said = tuple[str, str, bool]

LOGIN = "Correct the store's entry in the node's EASEL_AGENT_OBJECT_STORES_FILE."
CODES: dict[str, Said] = {
    "NoSuchBucket": ("the bucket does not exist", "Correct the path, or the endpoint.", False),
    "InvalidBucketName": ("no bucket can have that name", "Correct the path.", False),
    "InvalidAccessKeyId": ("the store does not know the node's key", LOGIN, False),
    "SignatureDoesNotMatch": ("the store refuses the node's secret", LOGIN, False),
    "ExpiredToken": ("the node's token for the store has expired", LOGIN, False),
    "RequestTimeTooSkewed": ("the node's clock is wrong", "Set it.", False),
    "SlowDown": ("the store asks for fewer requests", "This may pass.", True),
}
FORBIDDEN: Said = (
    "the store forbids this node to read it",
    "The store's entry in the node's EASEL_AGENT_OBJECT_STORES_FILE must have a login that may; without an entry, the "
    "store is read as everybody may.",
    False,
)


def explain(at: str, url: str, error: Exception, timeout_s: float) -> CannotFetch:
    """The refusal for what fsspec, a driver or this package raised."""
    what, hint, temporary = _ours(error, timeout_s) or next(
        (said for said in map(_said, chain(error)) if said is not None),
        (f"the driver gave up ({type(error).__name__})", "This may pass.", True),
    )
    return CannotFetch(f"{at}: {url} cannot be read: {what}. {hint}", temporary=temporary)


def _ours(error: Exception, timeout_s: float) -> Said | None:
    if isinstance(error, TookTooLong):
        return (f"it took longer than {timeout_s:.0f} s", "This may pass; what came is kept. A larger "
                "EASEL_AGENT_OBJECTS_TIMEOUT_S on the node helps where it does not.", True)  # fmt: skip
    return None


def _said(error: BaseException) -> Said | None:
    code, status = _answer(error)
    if code in CODES:
        return CODES[code]
    if status in (401, 403):
        return FORBIDDEN
    if status is not None and (status >= 500 or status == 429):
        return f"the store has trouble ({status})", "This may pass.", True
    name = type(error).__name__
    if isinstance(error, socket.gaierror) or "DNSError" in name:
        return "the store's host name is not known on the node", "Check the endpoint, or the node's DNS.", True
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in name:
        return "the store does not answer in time", "This may pass.", True
    if isinstance(error, ConnectionError) or name in ("EndpointConnectionError", "ClientConnectorError"):
        return "the store cannot be reached", "This may pass; else check the endpoint.", True
    return None


def _answer(error: BaseException) -> tuple[str, int | None]:
    """The code and HTTP status that a driver's error carries: botocore's shape, or an attribute of the others."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return str(response.get("Error", {}).get("Code", "")), status if isinstance(status, int) else None
    found = getattr(error, "status_code", None) or getattr(error, "code", None)
    return "", found if isinstance(found, int) else None
