"""`python -m easel_migrate.setup`: keys and configurations of a platform whose processes run in containers.

Runs once before all, also before `migrate`, as often as one likes: what exists is kept. It sees one volume per
process; each process sees its own only. Decides which secret goes to whom (the table below). Never gives a process
a secret that it does not use, and never prints one.

    setup/keys/                      every secret, as easel_migrate.keys lays them out
    <process>/keys/                  its nkey seed, its token, its database password, whom to believe
    <process>/data/                  what the process keeps
    migrate/keys/                    the administrator's and every role's database password, an nkey seed
    nats/nats.conf  envoy/bootstrap.json  postgres/keys/admin.password
"""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec import Struct

from easel_kit.settings import SettingsError, load
from easel_migrate.gateway import advertised, bootstrap_file
from easel_migrate.keys import ROLES, Keys
from easel_migrate.nats_config import config_text, max_file_mib
from easel_migrate.processes import PROCESSES
from easel_migrate.secret_files import write_file

VOLUMES = (*PROCESSES, "setup", "migrate", "nats", "postgres", "envoy")
PRIVATE = 0o700
PASSABLE = 0o711
"""The agent's: replicas run as other users and must reach their own directories below it."""


class Settings(Struct, frozen=True, kw_only=True):
    """Each field is an EASEL_* variable; the addresses are those that the processes themselves are given."""

    volumes_dir: Path
    """Holds one directory (a mounted volume) per process."""
    mounted_at: Path = Path("/var/lib/easel")
    """Where a process's volume lies in its own container."""
    control_addr: str
    scheduler_addr: str
    autoscaler_addr: str
    router_addr: str
    monitor_addr: str
    router_xds_addr: str
    router_shadow_addr: str
    monitor_sink_addr: str
    nats_listen: str = "0.0.0.0:4222"
    data_listen: str = "0.0.0.0:8080"
    data_url: str = ""
    """Where callers reach `data_listen`."""
    control_listen: str = "0.0.0.0:8081"
    web_listen: str = "0.0.0.0:8082"
    envoy_admin_socket: str = "/run/easel/admin.sock"
    envoy_probe_addr: str = "unix:/run/easel-probe/envoy.sock"
    """A socket that only the router's and Envoy's containers share."""


class NotPrepared(Exception):
    """A volume is missing or cannot be written; the text says which and why."""


def main() -> int:
    """Exit code 0: everything is in its place; 1: not, with the reason on stderr."""
    try:
        for line in prepare(load(Settings, "setup")):
            print(line)
    except (SettingsError, NotPrepared) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


def prepare(settings: Settings) -> list[str]:
    """Makes what is missing and writes every configuration; says what it did. Raises NotPrepared."""
    volumes = {
        name: settings.volumes_dir / name for name in (*PROCESSES, "setup", "migrate", "nats", "postgres", "envoy")
    }
    try:
        for name, volume in volumes.items():
            _directory(volume, PASSABLE if name == "agent" else PRIVATE, must_exist=True)
        keys = Keys(_directory(volumes["setup"] / "keys"))
        is_new = not keys.peers_file.exists()
        keys.ensure()
        for process in PROCESSES:
            _give_process(volumes[process], keys, process)
        _give_migrate(volumes["migrate"], keys)
        _copy(keys.admin_password, _directory(volumes["postgres"] / "keys") / "admin.password")
        changed = {
            "nats": _write(volumes["nats"] / "nats.conf", _nats(settings, keys, volumes["nats"])),
            "envoy": _write(volumes["envoy"] / "bootstrap.json", _envoy(settings, keys)),
        }
    except OSError as error:
        raise NotPrepared(f"{error.filename or settings.volumes_dir}: {error.strerror}") from error
    stale = [] if is_new else [f"{name}'s configuration changed: restart {name}" for name in changed if changed[name]]
    return [f"keys {'made' if is_new else 'kept'}", f"{len(volumes)} volumes ready", *stale]


def _give_process(volume: Path, keys: Keys, process: str) -> None:
    own = _directory(volume / "keys")
    _directory(volume / "data", PASSABLE if process == "agent" else PRIVATE)
    _copy(keys.seed(process), own / "nats.nk")
    _copy(keys.token(process), own / "process.token")
    _copy(keys.peers_file, own / "peers.json")
    if process in ROLES:
        _copy(keys.password(process), own / "database.password")
    if process == "monitor":  # hands it out to whoever may read events
        _copy(keys.seed("events"), own / "events.nk")


def _give_migrate(volume: Path, keys: Keys) -> None:
    own = _directory(volume / "keys")
    _copy(keys.seed("migrate"), own / "nats.nk")
    _copy(keys.admin_password, own / "database.password")
    passwords = _directory(own / "passwords")
    for role in ROLES:
        _copy(keys.password(role), passwords / role)


def _nats(settings: Settings, keys: Keys, volume: Path) -> bytes:
    store, limit = settings.mounted_at / "store", max_file_mib(volume)
    return config_text(keys, listen=settings.nats_listen, store_dir=store, file_mib=limit).encode()


def _envoy(settings: Settings, keys: Keys) -> bytes:
    return bootstrap_file(
        keys,
        process_addrs={
            "control": settings.control_addr, "scheduler": settings.scheduler_addr, "router": settings.router_addr,
            "autoscaler": settings.autoscaler_addr, "monitor": settings.monitor_addr,
        },
        xds_addr=settings.router_xds_addr,
        sink_addr=settings.monitor_sink_addr,
        shadow_addr=settings.router_shadow_addr,
        data_addr=settings.data_listen,
        advertised_addr=advertised(settings.data_url),
        control_addr=settings.control_listen,
        web_addr=settings.web_listen,
        admin_socket=settings.envoy_admin_socket,
        probe_addr=settings.envoy_probe_addr,
    )  # fmt: skip


def _directory(path: Path, mode: int = PRIVATE, *, must_exist: bool = False) -> Path:
    """A directory with exactly this mode. A volume that is not mounted must not become a directory that is lost."""
    if not must_exist:
        path.mkdir(mode=mode, exist_ok=True)
    path.chmod(mode)
    return path


def _copy(source: Path, target: Path) -> None:
    _write(target, source.read_bytes())


def _write(target: Path, content: bytes) -> bool:
    """Writes only what differs, so that a second run touches no file; whether it did."""
    if target.exists() and target.read_bytes() == content:
        return False
    write_file(target, content)
    return True


if __name__ == "__main__":
    sys.exit(main())
