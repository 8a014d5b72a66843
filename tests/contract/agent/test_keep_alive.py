"""How long real servers keep an idle connection, found out beside a replica's life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from easel_agent.decide.keep_alive import too_short_s
from easel_agent.keep_alive import exchange
from easel_contracts.spec import HttpCheck
from easel_kit.clock import SystemClock
from tests.contract.agent.rig import Rig, process_runtime

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Server], Coroutine[Any, Any, None]]
FOREVER = 3600.0

IMPATIENT = """
import http.server, os
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version, timeout = "HTTP/1.1", 1
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def http(*head: str, idle_s: float, body: str = "", abort: bool = False) -> Answers:
    """A server that answers each request so and closes after so long without one."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: asyncio.Server) -> None:
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError):
            while True:
                async with asyncio.timeout(idle_s):
                    await reader.readuntil(b"\r\n\r\n")
                writer.write(("\r\n".join((*head, "", "")) + body).encode())
        if abort:
            writer.transport.abort()

    return answers


def says(data: bytes, *, then_close: bool) -> Answers:
    """A server of another protocol."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: asyncio.Server) -> None:
        writer.write(data)
        if not then_close:
            await reader.read(-1)

    return answers


async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: asyncio.Server) -> None:
    """Answers, and ends a second later: first its port, then its connections."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await asyncio.sleep(1)
    server.close()


@contextlib.asynccontextmanager
async def serving(answers: Answers) -> AsyncIterator[int]:
    """The server's port."""
    server: asyncio.Server

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answers(reader, writer, server)
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


OK = ("HTTP/1.1 200 OK", "Content-Length: 2")
SERVERS: dict[str, tuple[Answers, float | None]] = {
    "closes after a second": (http(*OK, idle_s=1), 1.0),
    "closes by a reset": (http(*OK, idle_s=1, abort=True), 1.0),
    "404, closes after a second": (http("HTTP/1.1 404 Not Found", "Content-Length: 0", idle_s=1), 1.0),
    "500 with a body after HEAD, closes": (http("HTTP/1.1 500 Oh", "Content-Length: 4", idle_s=1, body="oops"), 1.0),
    "says two seconds": (http(*OK, "Keep-Alive: timeout=2", idle_s=FOREVER), 2.0),
    "says a minute": (http(*OK, "Keep-Alive: timeout=60", idle_s=1), None),
    "keeps": (http(*OK, idle_s=FOREVER), None),
    "closes after five seconds": (http(*OK, idle_s=5), None),
    "closes each, and says so": (http(*OK, "Connection: close", idle_s=0.2), None),
    "closes each, unsaid": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", then_close=True), None),
    "HTTP/1.0": (http("HTTP/1.0 200 OK", idle_s=1), None),
    "HTTP/2 only": (says(b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64" + b"\0\0\x08\7" + bytes(13), then_close=True), None),
    "a greeting": (says(b"220 mail.example ESMTP\r\n", then_close=False), None),
    "silence": (says(b"", then_close=False), None),
    "hangs up": (says(b"", then_close=True), None),
    "dies": (dies, None),
}


async def test_real_servers() -> None:
    """All at once: each takes up to five seconds."""

    async def ask(answers: Answers) -> float | None:
        async with serving(answers) as port:
            return too_short_s(await exchange("127.0.0.1", port, HttpCheck(path="/"), SystemClock()))

    found = await asyncio.gather(*(ask(answers) for answers, _ in SERVERS.values()))

    rounded = {name: None if value is None else float(round(value)) for name, value in zip(SERVERS, found, strict=True)}
    assert rounded == {name: expected for name, (_, expected) in SERVERS.items()}


async def test_nobody_there() -> None:
    """Nothing is learned."""
    async with serving(dies) as port:
        pass

    assert (await exchange("127.0.0.1", port, HttpCheck(), SystemClock())).answer is None


@pytest.fixture
async def runtime(short_path: Path) -> AsyncIterator[Rig]:
    """The process runtime."""
    async with process_runtime(short_path / "agent") as made:
        yield made


def script(program: str) -> str:
    """A shell script that runs a Python program."""
    return f"cat > server.py <<'END'\n{program}\nEND\nexec python server.py"


async def test_an_impatient_replica_is_told_once(runtime: Rig) -> None:
    """Ready first, then what was found; it stays known over a restart and is not asked again."""
    run = await runtime.run(script=script(IMPATIENT))
    ready = await runtime.ready(run)

    found = await runtime.until(run, lambda report: report.keep_alive_s is not None)
    runtime.restart(run, 1)
    again = await runtime.until(run, lambda report: report.restart_number == 1 and report.ready)

    assert ready.keep_alive_s is None
    assert found.keep_alive_s == pytest.approx(1.0, abs=0.4)
    assert found.ready
    assert again.keep_alive_s == found.keep_alive_s
    logs = await runtime.logs(run) + await runtime.logs(run, previous=True)
    assert len([text for _, text in logs if '"HEAD / HTTP/1.1"' in text]) == 1


async def test_a_replica_that_ends_meanwhile_is_not_misread(runtime: Rig) -> None:
    """Neither a stop nor a crash is a closed idle connection; the check ends with the program."""
    patient = script(IMPATIENT.replace('"HTTP/1.1", 1', '"HTTP/1.1", 100'))
    stopped, killed = await runtime.run(script=patient), await runtime.run(script=patient)
    for run in (stopped, killed):
        await runtime.ready(run)
        await runtime.printed(run, '"HEAD / HTTP/1.1"')

    report = await runtime.stop(stopped)
    program = runtime.agent.fleet.replicas[killed.replica].program
    assert program is not None
    program.kill()
    await runtime.until(killed, lambda seen: seen.phase == "running" and seen.restarts == 1 and seen.ready)

    assert report.keep_alive_s is None
    assert not [seen for seen in runtime.seen[killed.replica] if seen.keep_alive_s is not None]
