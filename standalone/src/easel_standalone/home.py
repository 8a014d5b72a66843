"""The data directory: where everything of one platform lies, who may read it, and who holds it now.

Decides the layout. Never starts, stops or signals anything.

    config.json     what was chosen: ports, host, TLS files; the URLs clients use
    keys/           0700: nkey seeds, process tokens, database passwords, access-key (for the user's own commands)
    run/            0700: sockets (a short directory under /tmp where this path is too long for one)
    nats/ postgres/ envoy/ control/ scheduler/ agent/ autoscaler/ router/ monitor/    each process's own data
    logs/           <process>.log, rotated
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

import msgspec
from cryptography import x509

from easel_contracts.errors import Conflict, InvalidInput, Refused
from easel_migrate.processes import PROCESSES
from easel_migrate.secret_files import write_file

CONFIG_VERSION = 1
DEFAULT_HOST, DATA_PORT, CONTROL_PORT, WEB_PORT = "127.0.0.1", 8080, 8081, 8082
MOST_GATEWAYS = 8
SOCKET_PATH_MAX = 107
"""Bytes of a unix socket's path on Linux (sun_path less its final zero)."""
LONGEST_SOCKET_NAME = len("hot_udp_parent_2147483647")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for this home; kept in config.json, which clients read as well (easel_sdk.discovery)."""

    version: int = CONFIG_VERSION
    created: datetime
    host: str = DEFAULT_HOST
    """Address the listeners bind."""
    port: int = DATA_PORT
    control_port: int = CONTROL_PORT
    web_port: int | None = None
    """Of web applications by their host names; 0: no such listener. None: 8082 beside the data listener's own default,
    none beside another, so that two platforms on one machine need no further option."""
    gateways: int = 1
    """Envoys that share the ports."""
    nats_port: int = 0
    """Chosen at the first start and kept; 0: not chosen yet."""
    insecure: bool = False
    """The listeners are open to others without TLS, as the user asked."""
    tls_cert: str = ""
    tls_key: str = ""
    control_url: str = ""
    data_url: str = ""
    web_url: str = ""
    """Of web applications, without the label that names one; empty: reached by path alone."""
    ca_file: str = ""
    """Certificate that clients on this machine trust for control_url; empty without TLS."""


def web_port(config: Config) -> int:
    """Where web applications are reached by their host names; 0: nowhere."""
    if config.web_port is None:
        return WEB_PORT if config.port == DATA_PORT else 0
    return config.web_port


def listening(config: Config) -> dict[str, tuple[str, int]]:
    """The listeners' ports: what it is for → (the option that moves it, the port)."""
    found = {"data": ("--port", config.port), "control": ("--control-port", config.control_port)}
    return found | ({"web": ("--web-port", port)} if (port := web_port(config)) else {})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def with_urls(config: Config) -> Config:
    """The config with the URLs that its host, ports and TLS files mean."""
    scheme = "https" if config.tls_cert else "http"
    name = config.host
    if config.host in ("0.0.0.0", "::"):
        name = _certified_name(Path(config.tls_cert)) if config.tls_cert else "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    # every name below localhost is this machine, which none below an address is
    web = f"{scheme}://{'localhost' if is_loopback(name) else name}:{web_port(config)}" if web_port(config) else ""
    return msgspec.structs.replace(
        config, control_url=f"{scheme}://{name}:{config.control_port}", data_url=f"{scheme}://{name}:{config.port}",
        web_url=web, ca_file=config.tls_cert,
    )  # fmt: skip


def _certified_name(certificate: Path) -> str:
    """What clients call this machine, so that the certificate fits: its host name where that is certified."""
    own = gethostname()
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):  # options.join refuses a file that is no certificate
        return own
    certified = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    whole = [name for name in certified if "*" not in name]
    return own if own in certified or not whole else whole[0]


class Home:
    """Paths of one platform's data directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.config_file = self.root / "config.json"
        self.keys = self.root / "keys"
        self.logs = self.root / "logs"
        self.lock_file = self.root / "lock"
        self.access_key_file = self.keys / "access-key"
        self.last_failure_file = self.root / "last-failure.json"
        self.leftovers_file = self.root / "children.json"

    @property
    def run(self) -> Path:
        """Directory of the sockets."""
        natural = self.root / "run"
        if len(os.fsencode(natural)) + 1 + LONGEST_SOCKET_NAME <= SOCKET_PATH_MAX:
            return natural
        return self.short_run("run")

    def short_run(self, purpose: str) -> Path:
        """A short directory that belongs to this home, for sockets that cannot lie inside it."""
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path("/tmp") / f"easel-{os.getuid()}-{digest}-{purpose}"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor answers `status` and `stop`."""
        return self.run / "supervisor.sock"

    def data(self, process: str) -> Path:
        """A process's own directory."""
        return self.root / process

    def socket(self, name: str) -> Path:
        """A socket, e.g. `control` or `control.health`."""
        return self.run / f"{name}.sock"

    def log(self, process: str) -> Path:
        """A process's log file."""
        return self.logs / f"{process}.log"

    def exists(self) -> bool:
        """Whether a platform was ever set up here."""
        return self.config_file.is_file()

    def config(self) -> Config:
        """What was chosen; raises InvalidInput where config.json cannot be read."""
        try:
            found = msgspec.json.decode(self.config_file.read_bytes(), type=Config)
        except FileNotFoundError:
            return Config(created=datetime.now(UTC))
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidInput(
                f"{self.config_file} cannot be read: {error}", hint="repair it, or choose another --home"
            ) from error
        if found.version > CONFIG_VERSION:
            raise Refused("HOME_IS_NEWER", f"{self.root} was written by a newer Easel", "install that version again")
        return found

    def save(self, config: Config) -> None:
        """Writes config.json at once or not at all."""
        write_file(self.config_file, msgspec.json.format(msgspec.json.encode(config), indent=2), mode=0o644)

    def prepare(self) -> None:
        """Makes the directories with their rights; raises Refused where that cannot be done safely."""
        try:
            # 0711, not 0700: replicas may run under another uid and must reach their own directory below agent/.
            _directory(self.root, 0o711)
            for private in (self.keys, self.logs, *(self.data(p) for p in (*PROCESSES, "nats", "envoy"))):
                _directory(private, 0o711 if private == self.data("agent") else 0o700)
            _directory(self.run, 0o700)
        except OSError as error:
            raise Refused(
                "HOME_NOT_WRITABLE", f"{error.filename or self.root}: {error.strerror}",
                "choose a directory that you may write to: --home DIR",
            ) from error  # fmt: skip

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the home against a second supervisor; raises Conflict where one runs."""
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    "ALREADY_UP", f"a platform already runs in {self.root}",
                    f"`easel status --home {self.root}` shows it; `easel down --home {self.root}` stops it",
                ) from error  # fmt: skip
            yield
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether a supervisor runs on this home."""
        try:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)


def _directory(path: Path, mode: int) -> None:
    """A directory that is ours, with exactly these rights; an existing one that is not ours is refused."""
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Refused(
            "NOT_OURS", f"{path} is not a directory of this user", "run it as its owner, or choose another --home"
        )
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
