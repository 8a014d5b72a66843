"""Envoy's bootstrap for this home: the router's pure function fed with our paths.

Decides addresses only; what the listeners do is the router's matter.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec

from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_standalone.home import Config, Home, write_file
from easel_standalone.keys import Keys

OWNERS = ("control", "scheduler", "autoscaler", "router", "monitor")
"""Processes with a public API."""


def write_bootstrap(home: Home, config: Config, keys: Keys) -> Path:
    """Writes the file Envoy is started with (0600: it holds a process token) and returns its path."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    found = bootstrap(
        BootstrapConfig(
            node_id="envoy-0",
            process_token=keys.process_token("envoy"),
            xds_addr=f"unix:{home.socket('xds')}",
            sink_addr=f"unix:{home.socket('sink')}",
            process_addrs={process: f"unix:{home.socket(process)}" for process in OWNERS},
            data_addr=f"{host}:{config.port}",
            control_addr=f"{host}:{config.control_port}",
            admin_socket=str(home.socket("envoy.admin")),
            probe_addr=f"unix:{home.socket('envoy.probe')}",
            descriptors=files("easel_proto").joinpath("v1/descriptors.binpb").read_bytes(),
            tls_cert=config.tls_cert,
            tls_key=config.tls_key,
        )
    )
    path = home.data("envoy") / "bootstrap.json"
    write_file(path, msgspec.json.encode(found))
    return path
