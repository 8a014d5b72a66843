"""Status, headers and body of two answers, compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from msgspec import Struct

from easel_contracts.spec import Comparison
from easel_router.decide.compare import excerpt
from easel_router.decide.compare.texts import similar
from easel_router.decide.compare.values import ABSENT, At, Kind, differences, parse

HEADERS = ("allow", "cache-control", "content-disposition", "content-language", "content-type", "location")
"""Headers that are part of an answer. Others say when, by whom and how it was sent (date, server, x-request-id,
content-length, …), or are secrets (set-cookie)."""

MOST_FIELDS = 200
"""Fields that one comparison names."""
LONGEST_PATH = 200
"""Characters of a field's path."""


class Answer(Struct, frozen=True, kw_only=True):
    """What a replica answered."""

    status: int
    headers: Mapping[str, str] = {}
    """By name in lower case; only those in HEADERS are looked at."""
    body: bytes = b""


class Difference(Struct, frozen=True, kw_only=True):
    """A field in which two answers differ, and its first values there."""

    path: str
    kind: Kind
    stable: str
    """As an example: cut, not exact."""
    candidate: str


class Compared(Struct, frozen=True, kw_only=True):
    """How two answers differ."""

    differences: tuple[Difference, ...] = ()
    """Each field once."""
    more: bool = False
    """Further fields differ, beyond MOST_FIELDS."""

    @property
    def equal(self) -> bool:
        """No field differs."""
        return not (self.differences or self.more)


def compare(stable: Answer, candidate: Answer, how: Comparison) -> Compared:
    """The fields in which two answers differ."""
    found = tuple(islice(_all(stable, candidate, how), MOST_FIELDS + 1))
    return Compared(differences=found[:MOST_FIELDS], more=len(found) > MOST_FIELDS)


def weight(*answers: Answer) -> int:
    """Bytes that a comparison of these has to look at; 0 where all bodies are equal."""
    return 0 if len({answer.body for answer in answers}) == 1 else sum(len(answer.body) for answer in answers)


def _all(stable: Answer, candidate: Answer, how: Comparison) -> Iterator[Difference]:
    if stable.status != candidate.status:
        yield Difference(path="status", kind="value", stable=str(stable.status), candidate=str(candidate.status))
    yield from _headers(stable.headers, candidate.headers)
    if stable.body != candidate.body:
        yield from _bodies(stable.body, candidate.body, how)


def _headers(stable: Mapping[str, str], candidate: Mapping[str, str]) -> Iterator[Difference]:
    for name in HEADERS:
        a, b = stable.get(name), candidate.get(name)
        if a is None and b is None:
            continue
        path = f"headers.{name}"
        if a is None or b is None:
            kind: Kind = "extra" if a is None else "missing"
            yield Difference(path=path, kind=kind, stable=excerpt.short(a or ""), candidate=excerpt.short(b or ""))
        elif _normal(name, a) != _normal(name, b):
            yield Difference(path=path, kind="value", stable=excerpt.short(a), candidate=excerpt.short(b))


def _normal(name: str, value: str) -> str:
    """Spaces and upper case mean nothing in what names a kind; a place is exact."""
    if name == "location":
        return value.strip()
    return ";".join(part.strip() for part in value.lower().split(";"))


def _bodies(stable: bytes, candidate: bytes, how: Comparison) -> Iterator[Difference]:
    one = parse(stable)
    other = parse(candidate) if one is not ABSENT else ABSENT
    if one is not ABSENT and other is not ABSENT:
        yield from _json(differences(one, other, how))
        return
    texts = _text(stable), _text(candidate)
    if texts[0] is not None and texts[1] is not None:
        if not similar(texts[0], texts[1], how.text_similarity):
            yield _whole("text", stable, candidate)
    else:
        yield _whole("bytes", stable, candidate)


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _whole(kind: Kind, stable: bytes, candidate: bytes) -> Difference:
    return Difference(path="body", kind=kind, stable=excerpt.of_bytes(stable), candidate=excerpt.of_bytes(candidate))


def _json(found: Iterable[At]) -> Iterator[Difference]:
    """Each field once: a list of a million wrong numbers is one."""
    seen: set[str] = set()
    for at in found:
        if at.path in seen:
            continue
        seen.add(at.path)
        path = f"body{at.path}" if at.path.startswith("[") else f"body.{at.path}" if at.path else "body"
        yield Difference(
            path=excerpt.short(path, LONGEST_PATH), kind=at.kind,
            stable=_example(at, at.one), candidate=_example(at, at.other),
        )  # fmt: skip


def _example(at: At, value: object) -> str:
    if value is ABSENT:
        return ""
    return f"{value} items" if at.kind == "length" else excerpt.of_value(value)
