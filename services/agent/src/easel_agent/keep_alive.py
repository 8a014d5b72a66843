"""Asks a replica's server one question on a connection of its own and sees how long it keeps that open."""

from __future__ import annotations

import asyncio
import ssl

from easel_agent.checks import unverified_tls
from easel_agent.decide.keep_alive import LONG_ENOUGH_S, Answer, Exchange, answer_in, is_whole, needs_waiting
from easel_contracts.spec import HttpCheck
from easel_kit.clock import Clock

ANSWER_S = 5.0
"""So long a server may take to answer before nothing can be said."""
PIECE = 64 * 1024


async def exchange(address: str, port: int, check: HttpCheck, clock: Clock) -> Exchange:
    """Takes up to ANSWER_S + LONG_ENOUGH_S. A server that cannot be asked gives an Exchange without an answer."""
    try:
        async with asyncio.timeout(ANSWER_S):
            tls = unverified_tls() if check.scheme == "HTTPS" else None
            reader, writer = await asyncio.open_connection(address, port, ssl=tls)
    except (OSError, TimeoutError, ssl.SSLError):
        return Exchange(answer=None)
    try:
        answer = await _ask(reader, writer, f"{address}:{port}", check.path)
        if not needs_waiting(answer):
            return Exchange(answer=answer)
        closed_after_s = await _until_closed(reader, clock)
    finally:
        writer.close()
    served_on = closed_after_s is None or await _accepts(address, port)
    return Exchange(answer=answer, closed_after_s=closed_after_s, served_on=served_on)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> Answer | None:
    path = path if path.startswith("/") else f"/{path}"
    request = f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: easel-probe\r\nAccept: */*\r\n\r\n"
    received = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(request.encode("latin-1", errors="replace"))
            while not is_whole(received):
                piece = await reader.read(PIECE)
                if not piece:
                    break
                received += piece
    except (OSError, TimeoutError, ssl.SSLError):
        return None
    return answer_in(received)


async def _until_closed(reader: asyncio.StreamReader, clock: Clock) -> float | None:
    """Seconds until the server closes; None: still open when it has been kept long enough.

    A body after the answer to HEAD is against the rules, but what is sent so counts as part of the answer.
    """
    began = idle_since = clock.monotonic()
    while True:
        left_s = LONG_ENOUGH_S - (clock.monotonic() - idle_since)
        if left_s <= 0 or clock.monotonic() - began > 2 * LONG_ENOUGH_S:
            return None
        try:
            async with asyncio.timeout(left_s):
                piece = await reader.read(PIECE)
        except TimeoutError:
            return None
        except (OSError, ssl.SSLError):  # closed by a reset
            piece = b""
        if not piece:
            return clock.monotonic() - idle_since
        idle_since = clock.monotonic()


async def _accepts(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
