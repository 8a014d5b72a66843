"""Asking a process whether it works: one GET over a unix socket or TCP, with h11 alone to keep the supervisor small.

Decides only what an answer means. Never raises: no answer is an answer.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import h11
from msgspec import Struct

TIMEOUT_S = 2.0
MAX_ANSWER = 256 * 1024
CHUNK = 64 * 1024


class Answer(Struct, frozen=True):
    """Of an HTTP server."""

    status: int
    """0: none."""
    body: str
    """Or, without a status, why there was none; empty: nobody listens."""


async def get(
    address: Path | tuple[str, int],
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """The answer to one request."""
    try:
        return await asyncio.wait_for(_get(address, path, method, headers or {}, tls), timeout_s)
    except TimeoutError:
        return Answer(0, f"no answer within {timeout_s:g} s")
    except (FileNotFoundError, ConnectionRefusedError):
        return Answer(0, "")
    except (OSError, h11.RemoteProtocolError) as error:
        return Answer(0, str(error) or type(error).__name__)


async def _get(
    address: Path | tuple[str, int], path: str, method: str, headers: dict[str, str], tls: ssl.SSLContext | None
) -> Answer:
    if isinstance(address, Path):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address, ssl=tls)
    try:
        connection = h11.Connection(h11.CLIENT)
        wire = [("Host", "localhost"), ("Connection", "close"), *headers.items()]
        for event in (h11.Request(method=method, target=path, headers=wire), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        return await _answer(connection, reader)
    finally:
        writer.close()


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    status, body = 0, b""
    while len(body) < MAX_ANSWER:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
            break
    return Answer(status, body.decode(errors="replace"))


async def health(socket: Path, path: str = "/ready") -> bool | str:
    """Whether a process's health address says yes; otherwise what it says (False: it does not listen yet)."""
    answer = await get(socket, path)
    if answer.status == 200:
        return True
    return answer.body.strip()[:300] or (f"status {answer.status}" if answer.status else False)
