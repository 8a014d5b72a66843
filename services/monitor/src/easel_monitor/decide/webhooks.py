"""Webhooks: what is sent, how it is signed, when it is tried again, and where nothing may be sent.

The body is a CloudEvent 1.0 in structured JSON mode; the signature follows Standard Webhooks (HMAC-SHA256 over
`id.timestamp.body`, header `webhook-signature: v1,<base64>`). Must never put a secret into anything but the signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import msgspec

from easel_contracts.errors import FieldError, InvalidInput
from easel_contracts.facts import Fact
from easel_monitor.decide import events

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MOST_S = 300.0
URL_MOST = 2048

METADATA = (
    ip_network("169.254.0.0/16"),
    ip_network("fe80::/10"),
    ip_network("fd00:ec2::/32"),
    ip_network("100.100.100.200/32"),
    ip_network("192.0.0.192/32"),
    ip_network("168.63.129.16/32"),
)
"""Link-local networks and the addresses where clouds hand credentials to whoever asks from the machine."""


def cloud_event(fact: Fact, sequence: int) -> bytes:
    """The fact as a CloudEvent; `sequence` and `traceparent` are CloudEvents' own extension attributes."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": fact.id,
        "source": f"/easel/{fact.workspace}/{fact.entity}",
        "type": f"easel.{fact.type}",
        "subject": fact.key,
        "time": fact.at,
        "datacontenttype": "application/json",
        "sequence": f"{sequence:020d}",
        "data": {
            "workspace": fact.workspace,
            "entity": fact.entity,
            "verb": fact.verb,
            "key": fact.key,
            "epoch": fact.epoch,
            "generation": fact.generation,
            "row_version": fact.row_version,
            "reason": fact.cause.reason,
            "message": fact.cause.message,
            "actor": fact.cause.actor,
            "state": events.state(fact),
        },
    }
    if fact.cause.traceparent:
        event["traceparent"] = fact.cause.traceparent
    return msgspec.json.encode(event)


def headers(secret: str, event_id: str, at_unix_s: int, body: bytes) -> dict[str, str]:
    """The request's headers; the receiver recomputes the signature, and drops an id it has seen."""
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": event_id,
        "webhook-timestamp": str(at_unix_s),
        "webhook-signature": sign(secret, event_id, at_unix_s, body),
    }


def sign(secret: str, event_id: str, at_unix_s: int, body: bytes) -> str:
    """`v1,<base64>`; `secret` is `whsec_<base64>`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{event_id}.{at_unix_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def secret_of(random: bytes) -> str:
    """Random bytes as a webhook's secret."""
    return SECRET_PREFIX + base64.b64encode(random).decode()


def back_off_s(failures: int) -> float:
    """Seconds until the next try after so many failures in a row: doubles from 1 s, at most 5 minutes."""
    return min(BACK_OFF_FIRST_S * 2.0 ** min(max(failures, 1) - 1, 30), BACK_OFF_MOST_S)


def check_url(url: str) -> str:
    """The URL, if it may be called at all; raises InvalidInput naming the field."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong(f"{url!r} must be http://host[:port]/path or https://...")
    if parts.username or parts.password:
        raise _wrong("a user name or password in it would be shown in lists; receivers check the signature instead")
    if len(url) > URL_MOST:
        raise _wrong(f"longer than {URL_MOST} characters")
    return url


def literal_address(url: str) -> str | None:
    """The URL's host where it is an address and not a name."""
    host = urlsplit(url).hostname or ""
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def refusal(address: str, *, allow_link_local: bool) -> str | None:
    """Why nothing is sent to an address; None: it may be called.

    Private and loopback addresses are allowed: whoever may make webhooks operates the platform, and its receivers
    usually run beside it. What a cloud answers on its metadata address is nobody's receiver.
    """
    ip: IPv4Address | IPv6Address = ip_address(address.split("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_multicast or ip.is_unspecified:
        return f"{address} is not the address of one machine"
    if not allow_link_local and any(ip in net for net in METADATA if net.version == ip.version):
        return f"{address} is a link-local or cloud-metadata address (EASEL_WEBHOOK_ALLOW_LINK_LOCAL=true allows it)"
    return None


def _wrong(message: str) -> InvalidInput:
    wrong = FieldError(path="url", code="NOT_ALLOWED", message=message)
    return InvalidInput(f"the webhook cannot be made: {message}", (wrong,), hint="give a plain http(s) URL")
