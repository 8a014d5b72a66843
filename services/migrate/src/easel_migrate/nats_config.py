"""nats-server's configuration: who may connect and say what, limits, durability.

Pure text of its arguments, but for the size of the disk. Never opens the monitoring port, which has no password.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from easel_migrate.keys import NATS_USERS, Keys
from easel_migrate.nats_rights import Rights, rights_of

MIB = 1024 * 1024
MAX_FILE_MIB = 16 * 1024
"""Most that streams may take on disk."""
MIN_FILE_MIB = 2 * 1024
"""What Easel's own streams reserve, and a little more."""
KEPT_FREE_MIB = 1024
"""Left to everything else on the disk: a full disk makes publishes time out without an error (bus.md §4)."""
MAX_PAYLOAD_MIB = 8


def max_file_mib(store: Path) -> int:
    """Disk that JetStream may use: what is free and what it has, less what is kept free, within bounds."""
    used = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) // MIB
    free = shutil.disk_usage(store).free // MIB
    return max(MIN_FILE_MIB, min(MAX_FILE_MIB, used + free - KEPT_FREE_MIB))


def server_name(keys: Keys) -> str:
    """What the server calls itself: another platform's server on the same port is not taken for ours."""
    return f"easel-{keys.nats_public('migrate')[-12:].lower()}"


def config_text(keys: Keys, *, listen: str, store_dir: Path, file_mib: int) -> str:
    """The configuration file. `listen` is host:port; `store_dir` as the server sees it."""
    users = "\n".join(_user(keys.nats_public(user), rights_of(user)) for user in NATS_USERS)
    return f"""\
server_name: {server_name(keys)}
listen: {json.dumps(listen)}
max_payload: {MAX_PAYLOAD_MIB}MB
max_connections: 256
ping_interval: "20s"
write_deadline: "10s"
logtime_utc: true
jetstream {{
  store_dir: {json.dumps(str(store_dir))}
  max_mem: 128MB
  max_file: {file_mib}MB
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


def _user(public: str, rights: Rights) -> str:
    publish, subscribe = json.dumps(list(rights.publish)), json.dumps(list(rights.subscribe))
    return (
        f"      {{nkey: {public}, permissions: {{publish: {{allow: {publish}}}, subscribe: {{allow: {subscribe}}}}}}}"
    )
