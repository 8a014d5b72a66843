"""What the command line calls: up, down, status, gateways, doctor. Plain functions; errors are EaselErrors.

Decides nothing about processes: it asks the supervisor, or becomes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil
from msgspec import Struct

from easel_contracts.errors import Conflict, EaselError, InvalidInput, Refused, Unavailable
from easel_standalone import control_socket, options, supported, systemd
from easel_standalone.control_socket import ProcessStatus, Status
from easel_standalone.doctor import Finding
from easel_standalone.doctor import examine as doctor
from easel_standalone.gateway import START_S, Replaced
from easel_standalone.home import MOST_GATEWAYS, Config, Home
from easel_standalone.keys import Keys
from easel_standalone.options import Options

__all__ = [
    "EventsCredentials", "Finding", "Options", "ProcessStatus", "Replaced", "Status", "doctor", "down",
    "events_credentials", "replace_gateways", "status", "systemd_unit", "up_detached", "up_foreground",
]  # fmt: skip

POLL_S = 0.05
LAST_BREATH_S = 10.0
"""From the supervisor's answer that all has ended to its own end."""
GRACE_S = 600.0
"""For requests and streams of a gateway that is replaced, unless the user says otherwise."""
LONGEST_GRACE_S = 86_400.0


def up_foreground(home: Path, wanted: Options) -> NoReturn:
    """Becomes the platform's supervisor: this process is replaced and ends with the platform."""
    supported.require_supported()
    os.execv(sys.executable, _command(home, wanted))


def up_detached(home: Path, wanted: Options, on_progress: Callable[[Status], None] | None = None) -> Status:
    """Starts the platform in the background and returns when it is ready.

    Raises Conflict where one runs already, and the reason of the failure where it cannot start; nothing is then left
    running. `on_progress` is called with the state of each process as it changes.
    """
    supported.require_supported()
    place = Home(home)
    if place.is_held():
        raise already_up(place, wanted)
    options.join(place.config(), wanted)
    place.prepare()
    place.last_failure_file.unlink(missing_ok=True)
    with open(place.log("supervisor"), "ab", opener=_private) as log:
        supervisor = subprocess.Popen(
            [*_command(home, wanted), "--log-to-file"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        return _wait_ready(place, supervisor, wanted, on_progress)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise


def _wait_ready(
    place: Home, supervisor: subprocess.Popen[bytes], wanted: Options, on_progress: Callable[[Status], None] | None
) -> Status:
    deadline = time.monotonic() + wanted.start_timeout_s + 30
    seen: object = None
    while supervisor.poll() is None:
        found = control_socket.ask_status(place.supervisor_socket)
        if found and on_progress and (now := [(p.name, p.state, p.restarts) for p in found.processes]) != seen:
            seen = now
            on_progress(found)
        if found and found.phase in ("ready", "degraded"):
            return found
        if time.monotonic() > deadline:
            supervisor.terminate()
            raise Unavailable("NOT_READY", "the platform did not become ready", f"see {place.log('supervisor')}")
        time.sleep(POLL_S)
    raise _failure(place)


def _failure(place: Home) -> EaselError:
    try:
        reason = msgspec.json.decode(place.last_failure_file.read_bytes(), type=dict[str, str])
        return Refused(reason["code"], reason["message"], reason["hint"])
    except (OSError, msgspec.MsgspecError, KeyError):
        if place.is_held():
            return already_up(place)
        return Unavailable("UP_FAILED", "the platform ended while it started", f"see {place.log('supervisor')}")


def already_up(place: Home, wanted: Options | None = None) -> Conflict:
    """The error of a second `up`, saying what runs, and how to get what was wanted where that is something else."""
    if wanted is not None and (changed := options.changed(place.config(), wanted)):
        return Conflict(
            "ALREADY_UP", f"a platform already runs in {place.root}, with {changed}",
            f"these change when it starts: `easel down --home {place.root}`, then this command again; "
            f"`easel gateway restart --home {place.root}` replaces its gateways as they are, without losing a request",
        )  # fmt: skip
    found = control_socket.ask_status(place.supervisor_socket)
    what = f": {found.phase}, control {found.control_url}, calls {found.data_url}, pid {found.pid}" if found else ""
    return Conflict(
        "ALREADY_UP", f"a platform already runs in {place.root}{what}",
        f"`easel status --home {place.root}` shows it, `easel down --home {place.root}` stops it; "
        "another --home with other ports runs beside it",
    )  # fmt: skip


def down(home: Path, timeout_s: float = 150.0) -> bool:
    """Stops the platform and everything it started; False where none was running.

    Raises Unavailable where the supervisor does not answer or does not end in time.
    """
    place = Home(home)
    if not place.is_held():
        return False
    found = control_socket.ask_status(place.supervisor_socket)
    supervisor = _process(found.pid) if found else None
    control_socket.ask_stop(place.supervisor_socket, timeout_s)
    try:
        if supervisor is not None:
            supervisor.wait(timeout=LAST_BREATH_S)
    except psutil.TimeoutExpired:
        pass  # told below
    if place.is_held():
        raise Unavailable(
            "DOWN_FAILED", f"the supervisor of {place.root} does not stop",
            f"see {place.log('supervisor')}; killing the supervisor itself ends every process it started",
        )  # fmt: skip
    return True


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def status(home: Path) -> Status:
    """The platform's processes; phase `stopped` with no processes where none runs."""
    place = Home(home)
    found = control_socket.ask_status(place.supervisor_socket)
    if found is not None:
        return found
    config: Config = place.config()
    held = place.is_held()
    return Status(
        phase="starting" if held else "stopped",
        message="the supervisor does not answer yet" if held else f"no platform runs in {place.root}",
        pid=0, control_url=config.control_url, data_url=config.data_url, web_url=config.web_url,
        disk_free_mib=0, processes=[],
    )  # fmt: skip


def replace_gateways(home: Path, grace_s: float = GRACE_S) -> list[Replaced]:
    """Gives every gateway a new process, one after the other; no request is lost.

    What the present ones are answering has `grace_s` to end; it returns before that, when the new ones take the calls.
    Raises InvalidInput, Unavailable where no platform runs or a new one does not become ready (the present one goes
    on), Conflict while earlier ones still finish, Refused where the configuration (TLS files) is not accepted.
    """
    if not 1 <= grace_s <= LONGEST_GRACE_S:
        raise InvalidInput(f"--grace {grace_s:g} is not possible", hint=f"1 to {LONGEST_GRACE_S:g} seconds")
    place = Home(home)
    if not place.is_held():
        raise Unavailable("NO_PLATFORM", f"no platform runs in {place.root}", "`easel up` starts one")
    longest_s = 10.0 + 2 * START_S * MOST_GATEWAYS
    found = control_socket.ask_replace_gateways(place.supervisor_socket, grace_s, longest_s)
    if found is None:
        raise Unavailable(
            "NO_ANSWER", f"the supervisor of {place.root} did not answer", f"see {place.log('supervisor')}"
        )
    return found


def systemd_unit(home: Path) -> str:
    """A unit file that keeps this home's platform up."""
    return systemd.unit(Home(home).root, as_root=os.geteuid() == 0)


class EventsCredentials(Struct, frozen=True, kw_only=True):
    """Read-only access to facts by NATS."""

    url: str
    user: str
    """Public nkey."""
    seed: str
    """Secret nkey seed: may subscribe to `easel.fact.>` and read the stream FACTS by direct get, nothing else."""
    inbox_prefix: str


def events_credentials(home: Path) -> EventsCredentials:
    """Raises Refused where no platform was ever set up here."""
    place = Home(home)
    keys = Keys(place)
    try:
        seed = keys.seed("events").read_text().strip()
    except OSError as error:
        raise Refused("NO_PLATFORM", f"no platform was set up in {place.root}", "run `easel up` first") from error
    return EventsCredentials(
        url=f"nats://127.0.0.1:{place.config().nats_port}", user=keys.nats_public("events"), seed=seed,
        inbox_prefix="_INBOX_events",
    )  # fmt: skip


def _command(home: Path, wanted: Options) -> list[str]:
    command = [sys.executable, "-P", "-m", "easel_standalone", "--home", str(Home(home).root)]
    for option, value in (
        ("--port", wanted.port), ("--control-port", wanted.control_port),
        ("--web-port", wanted.web_port), ("--host", wanted.host),
        ("--tls-cert", _absolute(wanted.tls_cert)), ("--tls-key", _absolute(wanted.tls_key)),
        ("--gateways", wanted.gateways), ("--timeout", wanted.start_timeout_s),
    ):  # fmt: skip
        command += [option, str(value)] if value is not None else []
    return [*command, *(["--insecure"] if wanted.insecure else []), *(["--restored"] if wanted.restored else [])]


def _absolute(path: str | None) -> str | None:
    """The supervisor runs in `/`."""
    return str(Path(path).expanduser().resolve()) if path else path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
