"""The files of each Envoy of this home: its bootstrap, its sockets, what it leaves behind. Starts nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

from easel_migrate.gateway import advertised, bootstrap_file
from easel_migrate.processes import PROCESSES
from easel_migrate.secret_files import write_file
from easel_standalone.decide.gateways import Process, base_ids
from easel_standalone.home import MOST_GATEWAYS, Config, Home, web_port
from easel_standalone.keys import Keys

SHARED_MEMORY = Path("/dev/shm")
HOT = "hot"
"""Prefix of the sockets at which two processes of a gateway hand over."""


def names(count: int) -> list[str]:
    """The gateways: envoy, envoy-1, envoy-2, ..."""
    return ["envoy", *(f"envoy-{number}" for number in range(1, count))]


def ids_of(home: Home, config: Config, gateway: str) -> tuple[int, ...]:
    """Its base ids. The moment the home was made tells it from one with the same path in another container."""
    return base_ids(f"{home.root}\0{config.created.isoformat()}", gateway)


def next_number(home: Home, gateway: str) -> int:
    """One more than its newest process has, whose bootstrap is kept."""
    numbers = [int(number) for file in home.data("envoy").glob(f"{gateway}.*.json")
               if (number := file.name.split(".")[1]).isdecimal()]  # fmt: skip
    return max(numbers, default=0) + 1


def admin_socket(home: Home, process: Process) -> Path:
    """Where it says whether it is ready."""
    return home.socket(f"{process.node_id}.admin")


def probe_socket(home: Home, process: Process) -> Path:
    """Where this very process answers what the data listener would."""
    return home.socket(f"{process.node_id}.probe")


def write_bootstrap(home: Home, config: Config, keys: Keys, process: Process) -> Path:
    """Writes the file a process is started with (0600: it holds a process token) and returns its path."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    content = bootstrap_file(
        keys,
        node_id=process.node_id,
        older=process.older,
        process_addrs={name: f"unix:{home.socket(name)}" for name in PROCESSES},
        xds_addr=f"unix:{home.socket('xds')}",
        sink_addr=f"unix:{home.socket('sink')}",
        shadow_addr=f"unix:{home.socket('shadow')}",
        data_addr=f"{host}:{config.port}",
        advertised_addr=advertised(config.data_url),
        control_addr=f"{host}:{config.control_port}",
        web_addr=f"{host}:{web_port(config)}" if web_port(config) else "",
        admin_socket=str(admin_socket(home, process)),
        probe_addr=f"unix:{probe_socket(home, process)}",
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
    )
    path = _bootstrap(home, process)
    try:
        write_file(path, content)
    except OSError:
        # A full disk must not keep a gateway from being started again: the file of its last life will do.
        if not path.exists():
            raise
    return path


def forget(home: Home, process: Process) -> None:
    """Removes the files of a process that has ended and does not come back."""
    for file in (_bootstrap(home, process), admin_socket(home, process), probe_socket(home, process)):
        file.unlink(missing_ok=True)


def clear(home: Home, config: Config) -> None:
    """Removes what earlier processes left, while none runs; the newest bootstrap of each gateway stays."""
    for file in [*home.run.glob("envoy*.sock"), *home.run.glob(f"{HOT}_*"), home.data("envoy") / "bootstrap.json"]:
        file.unlink(missing_ok=True)
    for gateway in names(MOST_GATEWAYS):
        newest = next_number(home, gateway) - 1
        for file in home.data("envoy").glob(f"{gateway}.*.json"):
            if file.name != f"{gateway}.{newest}.json":
                file.unlink(missing_ok=True)
        for base_id in ids_of(home, config, gateway):
            forget_memory(Process(gateway=gateway, number=0, base_id=base_id))


def forget_memory(process: Process) -> None:
    """Removes the memory that a process shared with its successor: Envoy leaves it."""
    with contextlib.suppress(OSError):
        (SHARED_MEMORY / process.shared_memory).unlink()


def _bootstrap(home: Home, process: Process) -> Path:
    return home.data("envoy") / f"{process.node_id}.json"
