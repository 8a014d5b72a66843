"""What is kept of requests and values as an example: short, printable, without what is a secret by its name."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

LONGEST = 200
"""Characters of a value, and of a request's body."""
LONGEST_PATH = 300
_SECRET = frozenset(
    {
        "access_key",
        "access_token",
        "api_key",
        "apikey",
        "auth",
        "key",
        "password",
        "secret",
        "sig",
        "signature",
        "token",
    }
)
"""Names in a query whose values are not kept."""


def short(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, as something that every encoding can carry."""
    kept = text if len(text) <= longest else text[: longest - 1] + "…"
    return kept.encode("utf-8", "replace").decode()


def of_value(value: object) -> str:
    """A JSON value as an example. A large one is cut before it is written out."""
    if isinstance(value, str):
        return short(json.dumps(value[: LONGEST + 1], ensure_ascii=False))
    return short(json.dumps(_cut(value, 3), ensure_ascii=False))


def of_bytes(body: bytes) -> str:
    """A body that is not JSON."""
    head = body[: 4 * LONGEST]
    try:
        return short(head.decode())
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(body) > len(head):
            return short(head[: error.start].decode() + "…")
    return short(f"{len(body)} bytes: {head[:24].hex(' ')}" + ("…" if len(body) > 24 else ""))


def request_line(method: str, path: str, body: bytes) -> str:
    """A request as an example: method, path, the beginning of the body. Headers are not kept, and of a query not what
    is a secret by its name."""
    base, mark, query = path.partition("?")
    if mark:
        pairs = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(name, "***" if name.lower() in _SECRET else value) for name, value in pairs], safe="*/,:")
    line = short(f"{method} {base}{mark}{query}", LONGEST_PATH)
    return f"{line}\n{of_bytes(body)}" if body else line


def _cut(value: object, depth: int) -> object:
    """No more of a value than an example could show: what follows costs by its size, not by the value's."""
    if isinstance(value, dict):
        kept = {str(k)[:LONGEST]: _cut(v, depth - 1) for k, v in list(value.items())[:8]} if depth else {}
        return kept | ({"…": f"{len(value) - len(kept)} more"} if len(value) > len(kept) else {})
    if isinstance(value, list):
        items = [_cut(v, depth - 1) for v in value[:24]] if depth else []
        return [*items, *([f"… {len(value) - len(items)} more"] if len(value) > len(items) else [])]
    if isinstance(value, str):
        return value[: LONGEST + 1]
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"{value.bit_length()} bits"
    return value
