"""Discovery messages as bytes: resources are serialised once and concatenated, never parsed on the way out.

Decides nothing; protocol buffers' wire format only (field numbers of envoy.service.discovery.v3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct

from easel_router.xds import envoy_pb2 as pb


class Packed(Struct, frozen=True):
    """A resource ready to send; `version` is the hash of its content."""

    name: str
    version: str
    body: bytes


def pack(name: str, body: bytes) -> Packed:
    """`body`: the serialised resource, without its Any."""
    return Packed(name, hashlib.blake2b(body, digest_size=12).hexdigest(), body)


def response(type_url: str, nonce: str, resources: Iterable[tuple[Packed, bytes]], removed: Iterable[str]) -> bytes:
    """A DeltaDiscoveryResponse; with each resource comes what is appended to its body (`salt`)."""
    parts = [_field(2, _resource(type_url, packed, extra)) for packed, extra in resources]
    parts += [_text(4, type_url), _text(5, nonce)]
    parts += [_text(6, name) for name in removed]
    return b"".join(parts)


def salt(name: str, nonce: str) -> bytes:
    """Bytes that, appended to a ScopedRouteConfiguration, rename its route table and change nothing else.

    Envoy 1.40 records the scopes of a rejected message, but does not hand them to its workers; the same content again
    is acknowledged and still not live (envoy.md §2). Protocol buffers merge what is appended.
    """
    table = pb.RouteConfiguration(name=f"{name}~{nonce}")
    return _field(5, table.SerializeToString())


def _resource(type_url: str, packed: Packed, extra: bytes) -> bytes:
    body = _text(1, type_url) + _field(2, packed.body + extra)
    return _text(1, packed.version) + _field(2, body) + _text(3, packed.name)


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
