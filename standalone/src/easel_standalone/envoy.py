"""Envoy's bootstrap for this home. Decides addresses only."""

from __future__ import annotations

from pathlib import Path

from easel_migrate.gateway import bootstrap_file
from easel_migrate.processes import PROCESSES
from easel_migrate.secret_files import write_file
from easel_standalone.home import Config, Home
from easel_standalone.keys import Keys


def write_bootstrap(home: Home, config: Config, keys: Keys) -> Path:
    """Writes the file Envoy is started with (0600: it holds a process token) and returns its path."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    content = bootstrap_file(
        keys,
        process_addrs={process: f"unix:{home.socket(process)}" for process in PROCESSES},
        xds_addr=f"unix:{home.socket('xds')}",
        sink_addr=f"unix:{home.socket('sink')}",
        data_addr=f"{host}:{config.port}",
        control_addr=f"{host}:{config.control_port}",
        admin_socket=str(home.socket("envoy.admin")),
        probe_addr=f"unix:{home.socket('envoy.probe')}",
        tls_cert=config.tls_cert,
        tls_key=config.tls_key,
    )
    path = home.data("envoy") / "bootstrap.json"
    write_file(path, content)
    return path
