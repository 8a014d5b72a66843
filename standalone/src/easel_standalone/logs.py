"""A process's output: appended to its log file with rotation, its last lines kept in memory.

Caps what logs take on disk. A full disk loses lines (counted), never blocks or ends the process that writes them.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path

MAX_BYTES = 8 * 1024 * 1024
KEPT_FILES = 2
"""Older files kept beside the current one: <name>.log.1 is the newest of them."""
LAST_LINES = 40
CHUNK = 64 * 1024


class LogFile:
    """Appends to one file and rotates it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self._path, self._max_bytes, self._kept = path, max_bytes, kept
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._partial = b""
        self.lost_bytes = 0
        """Not written because the disk refused."""

    def write(self, chunk: bytes) -> None:
        """Appends; rotates first where the file would grow over its cap."""
        *lines, self._partial = (self._partial[-CHUNK:] + chunk).split(b"\n")
        self._last.extend(line.decode(errors="replace") for line in lines)
        try:
            if self._path.exists() and self._path.stat().st_size + len(chunk) > self._max_bytes:
                self._rotate()
            with open(self._path, "ab", opener=_private) as file:
                file.write(chunk)
        except OSError:
            self.lost_bytes += len(chunk)

    def last_lines(self, count: int = LAST_LINES) -> list[str]:
        """The newest lines, oldest first."""
        unfinished = [self._partial.decode(errors="replace")] if self._partial else []
        return [*self._last, *unfinished][-count:]

    def begin(self) -> None:
        """A new life begins: what the one before said last is no longer of interest here."""
        self._last.clear()
        self._partial = b""

    async def take(self, stream: asyncio.StreamReader) -> None:
        """Writes what a process says until it says no more."""
        while chunk := await stream.read(CHUNK):
            self.write(chunk)

    def _rotate(self) -> None:
        for number in range(self._kept, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _private(path: str, flags: int) -> int:

    return os.open(path, flags, 0o600)
