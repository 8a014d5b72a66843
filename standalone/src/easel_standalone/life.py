"""One life of the platform, from a directory to running services and back: what `python -m easel_standalone` does.

The only place that builds the parts. Never leaves a process behind, whatever fails on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import ssl
import sys
import time

import msgspec

from easel_contracts.errors import EaselError, Refused
from easel_migrate.processes import PROCESSES
from easel_standalone import envoy, leftovers, options, ports, probes, supported, systemd
from easel_standalone.home import Config, Home, listening
from easel_standalone.keys import Keys
from easel_standalone.options import Options
from easel_standalone.plans import Plans
from easel_standalone.stores.postgres import Postgres, choose_user
from easel_standalone.supervisor import Say, Supervisor

MIN_DISK_MIB = 2048
OPEN_FILES = 65536


def run(home: Home, wanted: Options, say: Say) -> None:
    """Runs the platform until SIGTERM, SIGINT or `down`. Raises EaselError where it cannot start."""
    supported.require_supported()
    _watch_children_by_pidfd()
    home.prepare()
    with home.held():
        home.last_failure_file.unlink(missing_ok=True)
        config = _config(home, wanted)
        _require_disk(home)
        if killed := leftovers.end(home.leftovers_file, grace_s=5.0):
            say(f"ended what an earlier platform left: {', '.join(killed)}")
        _require_ports(config)
        config = msgspec.structs.replace(config, nats_port=ports.choose_nats(config.nats_port))
        home.save(config)
        _raise_file_limit()
        asyncio.run(_live(home, config, wanted, say))


async def _live(home: Home, config: Config, wanted: Options, say: Say) -> None:
    supervisor = Supervisor(home, config, say, wanted.start_timeout_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop_asked.set)
    try:
        async with supervisor.door():
            try:
                await _start(home, config, supervisor, restored=wanted.restored)
                _say_ready(home, config, say, supervisor)
                await supervisor.keep()
            finally:
                systemd.notify("STOPPING=1")
                say("stopping")
                await supervisor.stop()
    except Refused as stopped:
        if stopped.code != "STOPPED":
            raise
    say("stopped")


async def _start(home: Home, config: Config, supervisor: Supervisor, *, restored: bool) -> None:
    keys = Keys(home)
    keys.ensure()
    database = Postgres(home, keys, choose_user())
    plans = Plans(home, config, keys, database)
    # 1. The stores. The database's first directory takes a second: in a thread, beside NATS. (initdb ends; it is no
    #    child that must die with us, so forking it from a thread is harmless.)
    bus = supervisor.add(plans.nats())
    await asyncio.to_thread(prepare_database, database)
    await supervisor.wait_ready([bus, supervisor.add(plans.postgres())])
    # 2. Schemas, roles, streams, consumers.
    await supervisor.run_once(plans.migrate(restored=restored))
    # 3. All others at once.
    envoy.clear(home, config)
    gateways = [supervisor.add_gateway(name, plans.envoy) for name in envoy.names(config.gateways)]
    own = [supervisor.add(plans.process(name)) for name in PROCESSES]
    await supervisor.wait_ready([*own, *(gateway.current for gateway in gateways)])
    # 4. What a user would do.
    for gateway in gateways:
        await supervisor.wait_until(gateway.answers, f"a request through {gateway.name}")
    await supervisor.wait_until(lambda: _control_answers(home, config), "a request through the control listener")
    await supervisor.wait_until(lambda: _data_answers(config), "a request through the data listener")
    _require_alone(config, {child.pid for gateway in gateways for child in gateway.children.values() if child.pid})


def prepare_database(database: Postgres) -> None:
    """Makes the data directory where there is none, and removes what a dead server left."""
    database.clear_stale_pid_file()
    database.ensure_data()


async def _control_answers(home: Home, config: Config) -> bool | str:
    key = home.access_key_file.read_text().strip()
    answer = await probes.get(
        _local(config.host, config.control_port), "/v1/info", headers={"Authorization": f"Bearer {key}"},
        tls=_tls(config),
    )  # fmt: skip
    return answer.status == 200 or f"{answer.status} {answer.body[:200]}"


async def _data_answers(config: Config) -> bool | str:
    """A service that cannot exist (its name is not allowed) must be refused as EAS refuses it."""
    path = "/api/predict/0_is_easel_up"
    answer = await probes.get(_local(config.host, config.port), path, tls=_tls(config))
    return (answer.status == 404 and answer.body.startswith("{")) or f"{answer.status} {answer.body[:200]}"


def _local(host: str, port: int) -> tuple[str, int]:
    return ({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def _tls(config: Config) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    # Our own listener, asked over loopback, maybe by another name than the certificate's.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _config(home: Home, wanted: Options) -> Config:
    return options.join(home.config(), wanted)


def _require_ports(config: Config) -> None:
    for what, (option, port) in listening(config).items():
        ports.require_free(config.host, port, what, option)


def _require_alone(config: Config, ours: set[int]) -> None:
    """Two that start at the same moment both find the ports free, and Envoy shares them."""
    for what, (option, port) in listening(config).items():
        ports.require_alone(config.host, port, ours, what, option)


def _require_disk(home: Home) -> None:
    free = shutil.disk_usage(home.root).free // (1024 * 1024)
    first = not (home.data("postgres") / "data").exists()
    if first and free < MIN_DISK_MIB:
        raise Refused(
            "DISK_FULL", f"{home.root} has {free} MiB free; a new platform needs {MIN_DISK_MIB} MiB",
            "free some space, or choose a --home on another disk",
        )  # fmt: skip


def _say_ready(home: Home, config: Config, say: Say, supervisor: Supervisor) -> None:
    supervisor.phase = "ready"
    systemd.notify("READY=1")
    say(f"ready after {time.monotonic() - supervisor.began:.1f} s")
    say(f"calls    {config.data_url}/api/predict/<service>")
    if config.web_url:
        say(f"web      {config.web_url.replace('://', '://<service>.')}")
    say(f"control  {config.control_url}    access key in {home.access_key_file}")


def _raise_file_limit() -> None:
    """Each connection through Envoy is two files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _watch_children_by_pidfd() -> None:
    """Python 3.11's default starts a thread per child; 3.12 watches by pidfd itself."""
    if sys.version_info < (3, 12):
        with contextlib.suppress(OSError):
            os.close(os.pidfd_open(os.getpid()))
            asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


def fail(home: Home, error: EaselError) -> None:
    """Leaves the reason where `easel up --detach` finds it."""
    reason = {"code": error.code, "message": error.message, "hint": error.hint}
    with contextlib.suppress(OSError):
        home.last_failure_file.write_bytes(msgspec.json.encode(reason))
