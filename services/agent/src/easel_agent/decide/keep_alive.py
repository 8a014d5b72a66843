"""Decides what one exchange with a replica's server says about the idle connections it keeps.

The gateway keeps idle connections to replicas for 4 s. A server that closes them sooner can close one just as a request
comes over it, and that request is lost when it may not be sent again.
"""

from __future__ import annotations

import re

from msgspec import Struct

from easel_agent.decide.probing import target_port
from easel_contracts.spec import HttpCheck, RevisionSpec

LONG_ENOUGH_S = 4.8
"""Clear of the gateway's 4 s, and below the 5 s after which uvicorn and Node close: they are not short."""
AT_ONCE_S = 0.1
"""A connection closed so soon was closed with the answer, and never offered again."""
LONGEST_HEAD = 64 * 1024
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?\r?\n")
END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class Answer(Struct, frozen=True, kw_only=True):
    """The final answer's head, as far as it speaks of the connection."""

    keeps: bool
    """The server means to keep the connection open."""
    timeout_s: float | None = None
    """For how long, where `Keep-Alive: timeout=` says so."""


class Exchange(Struct, frozen=True, kw_only=True):
    """What was seen on one connection."""

    answer: Answer | None
    """None: nothing that HTTP/1 would call an answer."""
    closed_after_s: float | None = None
    """Idle time after which the server closed; None: it was still open when we left."""
    served_on: bool = True
    """After that, the same program still accepted connections: it had neither ended nor begun to end."""


def question(revision: RevisionSpec, own_port: int) -> HttpCheck:
    """What to ask for: what a probe asks the replica's own port for, else `/`."""
    for probe in (revision.readiness, revision.liveness):
        check = probe.check if probe else None
        if isinstance(check, HttpCheck) and target_port(check, revision.port, own_port) == own_port:
            return check
    return HttpCheck()


def is_whole(received: bytes) -> bool:
    """Whether the final answer's head is there, or nothing that is received can still make one."""
    head = _final(received)
    if head is None:
        return True
    return END_OF_HEAD.search(head) is not None or len(received) >= LONGEST_HEAD


def answer_in(received: bytes) -> Answer | None:
    """The final answer's head in what a server sent; None where it is not HTTP/1, or not complete."""
    head = _final(received)
    end = END_OF_HEAD.search(head) if head else None
    status = STATUS_LINE.match(head) if head else None
    if not head or not end or not status:
        return None
    fields: dict[str, str] = {}
    for line in head[status.end() : end.start()].decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        known = fields.get(name.strip().lower())
        fields[name.strip().lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
    options = {option.strip().lower() for option in fields.get("connection", "").split(",")}
    keeps = "close" not in options and (status[1] == b"1" or "keep-alive" in options)
    timeout = re.search(r"\btimeout\s*=\s*([0-9]+)", fields.get("keep-alive", ""), re.IGNORECASE)
    return Answer(keeps=keeps, timeout_s=float(timeout[1]) if timeout else None)


def needs_waiting(answer: Answer | None) -> bool:
    """Whether only time can tell how long the connection is kept."""
    return answer is not None and answer.keeps and answer.timeout_s is None


def too_short_s(exchange: Exchange) -> float | None:
    """How long the server keeps an idle connection, where that is too short for the gateway; None: it is not, or
    nothing was learned."""
    answer = exchange.answer
    if answer is None or not answer.keeps:
        return None
    if answer.timeout_s is not None:
        return answer.timeout_s if answer.timeout_s < LONG_ENOUGH_S else None
    closed_s = exchange.closed_after_s
    if closed_s is None or not exchange.served_on or not AT_ONCE_S <= closed_s < LONG_ENOUGH_S:
        return None
    return round(closed_s, 1)


def _final(received: bytes) -> bytes | None:
    """What is received from the final answer on, without interim ones (1xx); None: this is not HTTP/1."""
    rest = received
    while True:
        status = STATUS_LINE.match(rest)
        if status is None:
            may_become = b"\n" not in rest and b"HTTP/1.".startswith(rest[:7])
            return rest if may_become else None
        end = END_OF_HEAD.search(rest)
        if end is None or status[2][:1] != b"1":
            return rest
        rest = rest[end.end() :]
