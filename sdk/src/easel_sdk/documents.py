"""Protobuf messages as plain data with the names of the .proto files, zero values included.

What is not known is None, never zero: an `optional` field or a time that is not set, and what is not a number in JSON
(NaN, infinity). Unlike protobuf's own JSON form, 64-bit numbers stay numbers; a time is a string in UTC (RFC 3339).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_TIMESTAMP = Timestamp.DESCRIPTOR.full_name


def to_dict(message: Message) -> dict[str, Any]:
    """The message as a dict: every field by its snake_case name."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def to_datetime(stamp: Timestamp) -> datetime | None:
    """The time in UTC; None where it is not set."""
    if stamp.seconds == 0 and stamp.nanos == 0:
        return None
    return datetime.fromtimestamp(stamp.seconds + stamp.nanos / 1e9, tz=UTC)


def _field(message: Message, field: Any) -> Any:
    if field.has_presence and field.containing_oneof is not None and not message.HasField(field.name):
        return None  # `optional` in the .proto: not known, which is not zero
    value = getattr(message, field.name)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        item = entry.fields_by_name["value"]
        return {str(key): _value(value[key], item) for key in sorted(value)}
    if field.is_repeated:
        return [_value(item, field) for item in value]
    if entry is not None and entry.full_name != _TIMESTAMP and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if isinstance(value, Timestamp):
        at = to_datetime(value)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None
    if field.message_type is not None:
        return to_dict(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
