"""Asking over HTTP: every answer is an answer, and none is an answer too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from easel_standalone import probes


@asynccontextmanager
async def _server(path: Path, answer: bytes) -> AsyncIterator[None]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(handle, path):
        yield


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nlate\r\n0\r\n\r\n", "late"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503"),
    ],
)
async def test_health_says_yes_or_why_not(short_path: Path, answer: bytes, expected: bool | str) -> None:
    """Bodies come plain or in chunks."""
    async with _server(short_path / "s", answer):
        assert await probes.health(short_path / "s") == expected


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_broken_answer_is_no(short_path: Path, answer: bytes) -> None:
    """Something else on the socket, or a process that dies while it answers."""
    async with _server(short_path / "s", answer):
        assert (await probes.get(short_path / "s", "/")).status == 0


async def test_silence_is_no(short_path: Path) -> None:
    """No socket, or nobody who answers."""
    assert (await probes.get(short_path / "none", "/")).status == 0
    async with await asyncio.start_unix_server(lambda r, w: None, short_path / "s"):
        assert "0.1 s" in (await probes.get(short_path / "s", "/", timeout_s=0.1)).body
