"""Keeps what a replica writes to stdout and stderr: capped, rotated, the run before kept, readable while it grows.

One text file per run; a line is `<unix milliseconds> <mark> <text>`. Marks: O stdout, E stderr, V an event told by the
agent; lower case when the text did not end with a newline (a long line cut in pieces, or the last words of a program).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from io import FileIO
from pathlib import Path

STREAMS = {"O": "stdout", "E": "stderr", "V": "event"}
LONGEST_LINE = 16 * 1024
READ = 64 * 1024


class ReplicaLog:
    """The log of one replica. All methods are for the event loop's thread."""

    def __init__(self, directory: Path, *, file_bytes: int = 10 * 1024 * 1024, files: int = 3) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory, self._file_bytes, self._files = directory, file_bytes, files
        self._out = self._open()
        self._size = self._out.tell()
        self._lost = 0
        self._tail: deque[str] = deque(maxlen=20)
        self._rest: dict[str, bytes] = {}
        self._readers: dict[int, str] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def attach(self, mark: str) -> int:
        """A new pipe: its write end, to be given to a program and then closed; what comes out is kept under `mark`."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        self._readers[read] = mark
        asyncio.get_running_loop().add_reader(read, self._on_readable, read)
        return write

    def event(self, text: str) -> None:
        """Write a line of the agent's own."""
        self._write([("V", text.encode())])

    def add(self, mark: str, text: bytes) -> None:
        """Write a line that came by another way than a pipe; a small mark: it did not end with a newline."""
        self._write([(mark, text)])

    def tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines the program wrote in this run."""
        return tuple(self._tail)[-lines:]

    def next_run(self) -> None:
        """A new run begins: what was written becomes `previous`."""
        self.drain()
        self._out.close()
        for number in range(self._files):
            old = self._path("previous", number)
            old.unlink(missing_ok=True)
            current = self._path("current", number)
            if current.exists():
                current.rename(old)
        self._out = self._open()
        self._size = 0
        self._tail.clear()
        self._wake()

    def drain(self) -> None:
        """Read what the pipes still hold and let go of them: the program has ended."""
        for read in list(self._readers):
            while self._read(read):
                continue
            if read in self._readers:
                self._detach(read)

    def close(self) -> None:
        """No more will be written; followers end."""
        if not self._closed:
            self.drain()
            self._closed = True
            self._out.close()
            self._wake()

    async def read(self, *, tail_lines: int, follow: bool, previous: bool) -> AsyncIterator[tuple[str, bytes]]:
        """Pieces (stream, bytes): the last `tail_lines` lines (-1: all kept), then, with `follow`, what comes."""
        inode, position = self._position()
        for stream, data in tail(self._directory, "previous" if previous else "current", self._files, tail_lines):
            yield stream, data
        while follow and not previous:
            changed = self._changed
            now_inode, end = self._position()
            if now_inode != inode:  # rotated, or a new run: go on at the beginning of the new file
                inode, position = now_inode, 0
            for stream, data in _parse(_slice(self._path("current", 0), position, end)):
                yield stream, data
            position = end
            if self._closed:
                return
            await changed.wait()

    def _on_readable(self, read: int) -> None:
        self._read(read)

    def _read(self, read: int) -> bool:
        """One piece from a pipe; False when there is none now. Lets go of the pipe at its end."""
        if read not in self._readers:
            return False
        try:
            data = os.read(read, READ)
        except BlockingIOError:
            return False
        if not data:
            self._detach(read)
            return False
        self._feed(self._readers[read], read, data)
        return True

    def _detach(self, read: int) -> None:
        mark = self._readers.pop(read)
        rest = self._rest.pop(f"{mark}{read}", b"")
        if rest:
            self._write([(mark.lower(), rest)])
        asyncio.get_running_loop().remove_reader(read)
        os.close(read)

    def _feed(self, mark: str, read: int, data: bytes) -> None:
        key = f"{mark}{read}"
        lines = (self._rest.pop(key, b"") + data).split(b"\n")
        rest = lines.pop()
        pieces = [(mark, line) for line in lines]
        while len(rest) > LONGEST_LINE:
            pieces.append((mark.lower(), rest[:LONGEST_LINE]))
            rest = rest[LONGEST_LINE:]
        if rest:
            self._rest[key] = rest
        self._write(pieces)

    def _write(self, pieces: Sequence[tuple[str, bytes]]) -> None:
        """Append marked texts, each a line. On a full disk they are lost and counted; the program goes on."""
        if self._closed or not pieces:
            return
        out, now = bytearray(), time.time_ns() // 1_000_000
        for mark, text in pieces:
            if mark in "OEoe":
                self._tail.append(text.decode(errors="replace")[:2000])
            for at in range(0, max(len(text), 1), LONGEST_LINE):
                whole = at + LONGEST_LINE >= len(text)
                shown = (mark if whole else mark.lower()).encode()
                out += b"%d %s %s\n" % (now, shown, text[at : at + LONGEST_LINE])
        if self._lost:
            out += b"%d V %d lines before were lost: the disk was full\n" % (now, self._lost)
        try:
            written = self._out.write(out)
        except OSError:
            self._lost += len(pieces)
            return
        self._lost = 0
        self._size += written or 0
        if self._size > self._file_bytes:
            self._rotate()
        self._wake()

    def _rotate(self) -> None:
        self._out.close()
        for number in range(self._files - 1, 0, -1):
            newer = self._path("current", number - 1)
            if newer.exists():
                newer.rename(self._path("current", number))
        self._out = self._open()
        self._size = 0

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _open(self) -> FileIO:
        return FileIO(self._path("current", 0), "ab")

    def _position(self) -> tuple[int, int]:
        status = self._path("current", 0).stat()
        return status.st_ino, status.st_size

    def _path(self, run: str, number: int) -> Path:
        return _path(self._directory, run, number)


def tail(directory: Path, run: str, files: int, lines: int) -> Iterator[tuple[str, bytes]]:
    """The last `lines` lines (-1: all) of a run's files, oldest first; also of a replica that has ended."""
    kept: deque[tuple[str, bytes]] = deque(maxlen=None if lines < 0 else lines)
    for number in range(files - 1, -1, -1):
        path = _path(directory, run, number)
        if path.exists():
            kept.extend(_parse(path.read_bytes()))
    yield from kept


def _path(directory: Path, run: str, number: int) -> Path:
    return directory / (run if number == 0 else f"{run}.{number}")


def _slice(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(max(0, end - start))


def _parse(data: bytes) -> Iterator[tuple[str, bytes]]:
    for line in data.split(b"\n"):
        _, _, marked = line.partition(b" ")
        mark, _, text = marked.partition(b" ")
        name = STREAMS.get(mark.decode(errors="replace").upper())
        if name is not None:
            yield name, text + (b"\n" if mark.isupper() else b"")
