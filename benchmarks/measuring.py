"""What the benchmarks of the whole platform share: a platform of its own, a polling client, quantiles.

A platform gets a new home under the system's temporary directory and free ports; it is stopped and removed at the end.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from easel_kit.testing import free_port
from easel_standalone import api

POLL_S = 0.003
"""Between two requests of a poller: what it sees is late by half of this in the mean."""


@contextmanager
def own_platform() -> Iterator[Path]:
    """Home of a platform that is ready."""
    with tempfile.TemporaryDirectory(prefix="ez", dir="/tmp", ignore_cleanup_errors=True) as directory:
        home = Path(directory) / "home"
        Path(directory).chmod(0o755)  # replicas run as users of their own
        try:
            api.up_detached(home, api.Options(port=free_port(), control_port=free_port()))
            yield home
        finally:
            api.down(home)


class Poller:
    """Asks one path of the data listener over one connection, again and again."""

    def __init__(self, data_url: str, path: str) -> None:
        url = urlsplit(data_url)
        self._address, self._path = (url.hostname or "127.0.0.1", url.port or 80), path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def until(self, token: str, wanted: Callable[[int], bool], timeout_s: float = 60.0) -> float:
        """time.perf_counter() of the first answer whose status is wanted."""
        give_up = time.perf_counter() + timeout_s
        status = 0
        while (now := time.perf_counter()) < give_up:
            status = await self.ask(token)
            if wanted(status):
                return time.perf_counter()
            await asyncio.sleep(max(0.0, POLL_S - (time.perf_counter() - now)))
        raise SystemExit(f"{self._path} still answers {status} after {timeout_s:g} s")

    async def ask(self, token: str) -> int:
        """One GET; its status, 0 where the connection broke."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            writer.write(f"GET {self._path} HTTP/1.1\r\nhost: bench\r\nauthorization: {token}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), None)
            if length is None or "connection: close" in head:
                self.close()
            else:
                await reader.readexactly(length)
            return int(head.split(" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]


def verdict(what: str, found: float, gate: float, unit: str, *, at_least: bool = False) -> bool:
    """Prints a gate's line in the form `run_all.py` reads; whether it is met."""
    met = found >= gate if at_least else found <= gate
    wanted = f"{'>=' if at_least else '<='} {gate:g} {unit}"
    ratio = f"{found / gate:.2f}" if gate else "-"
    print(f"GATE {what} | {found:.2f} {unit} | {wanted} | {ratio} | {'met' if met else 'MISSED'}")
    return met
