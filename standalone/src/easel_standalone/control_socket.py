"""The supervisor's own door: one JSON object a line over a unix socket that only its user can open.

{"op": "status"} → Status          {"op": "stop"} → {"stopped": true} when all has ended
{"op": "replace-gateways", "grace_s": 600} → {"gateways": [...]} when each has a new process, or a Failure
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from easel_contracts.errors import Conflict, EaselError, Refused, Unavailable
from easel_standalone.gateway import Replaced

Phase = Literal["stopped", "starting", "ready", "degraded", "stopping"]


READ_S = 1.0
"""A client sends its line at once, and takes the answer at once."""


class ProcessStatus(Struct, frozen=True, kw_only=True):
    """One process of the platform."""

    name: str
    pid: int | None
    state: str
    """starting | running | not ready | backing off | failed | stopped | finishing"""
    restarts: int
    up_s: float
    message: str = ""
    """Why it is not ready, or how it ended last."""


class Status(Struct, frozen=True, kw_only=True):
    """The platform as its supervisor sees it."""

    phase: Phase
    message: str
    pid: int
    control_url: str
    data_url: str
    web_url: str = ""
    """Empty: no listener for web applications' host names."""
    disk_free_mib: int
    processes: list[ProcessStatus]


class Request(Struct, frozen=True):
    """What a client asks."""

    op: Literal["status", "stop", "replace-gateways"]
    grace_s: float = 0.0


class Stopped(Struct, frozen=True):
    """The answer to `stop`."""

    stopped: bool = True


class GatewaysReplaced(Struct, frozen=True, tag="replaced"):
    """The answer to `replace-gateways`."""

    gateways: list[Replaced]


class Failure(Struct, frozen=True, tag="failure"):
    """What was asked for was refused, or failed."""

    kind: str
    """Conflict | Refused | Unavailable"""
    code: str
    message: str
    hint: str


KINDS: dict[str, type[EaselError]] = {kind.__name__: kind for kind in (Conflict, Refused, Unavailable)}


@contextlib.asynccontextmanager
async def serve(
    path: Path,
    status: Callable[[], Awaitable[Status]],
    stop: Callable[[], Awaitable[None]],
    replace_gateways: Callable[[float], Awaitable[list[Replaced]]],
) -> AsyncIterator[None]:
    """Answers while inside; one request a connection. Leaving waits for answers that are under way."""
    busy: set[asyncio.Task[None]] = set()

    async def answer(request: Request) -> Struct:
        try:
            if request.op == "stop":
                await stop()
                return Stopped()
            if request.op == "replace-gateways":
                return GatewaysReplaced(await replace_gateways(request.grace_s))
            return await status()
        except EaselError as error:
            return Failure(type(error).__name__, error.code, error.message, error.hint)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        task.add_done_callback(busy.discard)
        with contextlib.suppress(OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            request = msgspec.json.decode(await asyncio.wait_for(reader.readline(), READ_S), type=Request)
            writer.write(msgspec.json.encode(await answer(request)) + b"\n")
            await asyncio.wait_for(writer.drain(), READ_S)
        writer.close()

    server = await asyncio.start_unix_server(handle, sock=_private_socket(path))
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
        if busy:
            await asyncio.wait(busy)


def _private_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(path))
    # Before it listens: nobody can have connected yet.
    os.chmod(path, 0o600)
    return door


@contextlib.contextmanager
def _connected(path: Path, timeout_s: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        yield client


def ask_status(path: Path, timeout_s: float = 10.0) -> Status | None:
    """The status, or None where no supervisor answers."""
    answer = _ask(path, Request("status"), timeout_s)
    return msgspec.json.decode(answer, type=Status) if answer else None


def ask_stop(path: Path, timeout_s: float) -> bool:
    """Whether a supervisor answered that everything has ended."""
    return bool(_ask(path, Request("stop"), timeout_s))


def ask_replace_gateways(path: Path, grace_s: float, timeout_s: float) -> list[Replaced] | None:
    """What became of each gateway, or None where no supervisor answers; raises what the supervisor refused."""
    answer = _ask(path, Request("replace-gateways", grace_s), timeout_s)
    if not answer:
        return None
    found = msgspec.json.decode(answer, type=GatewaysReplaced | Failure)
    if isinstance(found, Failure):
        raise KINDS[found.kind](found.code, found.message, found.hint)
    return found.gateways


def _ask(path: Path, request: Request, timeout_s: float) -> bytes:
    try:
        with _connected(path, timeout_s) as client:
            client.sendall(msgspec.json.encode(request) + b"\n")
            with client.makefile("rb") as answers:
                return answers.readline()
    except OSError:
        return b""
