"""Processes that an earlier supervisor left behind: recorded while they run, ended before the next start.

They should not exist (every child dies with its supervisor); this is the second net. A process is only signalled
where pid, start time and boot agree with the record.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from easel_migrate.secret_files import write_file


class Seen(Struct, frozen=True):
    """One process, so that it cannot be taken for another."""

    name: str
    pid: int
    start_ticks: int
    """Start time in the kernel's ticks since boot: does not move when the clock is set."""


class Record(Struct, frozen=True):
    """All children of one supervisor."""

    boot_id: str
    children: list[Seen]


def remember(file: Path, children: dict[str, int]) -> None:
    """Records the children that run now (name → pid)."""
    found = []
    for name, pid in children.items():
        with contextlib.suppress(OSError):
            found.append(Seen(name, pid, _start_ticks(pid)))
    write_file(file, msgspec.json.encode(Record(_boot_id(), found)))


def living(file: Path) -> list[tuple[Seen, psutil.Process]]:
    """Recorded processes that still run."""
    try:
        record = msgspec.json.decode(file.read_bytes(), type=Record)
    except (OSError, msgspec.MsgspecError):
        return []
    if record.boot_id != _boot_id():
        return []
    found = []
    for child in record.children:
        with contextlib.suppress(OSError, psutil.Error):
            process = psutil.Process(child.pid)
            if _start_ticks(child.pid) == child.start_ticks and process.status() != psutil.STATUS_ZOMBIE:
                found.append((child, process))
    return found


def _start_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; the second field may contain spaces and brackets, so count from its end."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def end(file: Path, grace_s: float) -> list[str]:
    """Waits for leftovers to end by themselves, then kills them; their names. PostgreSQL is never killed here."""
    found = living(file)
    _, alive = psutil.wait_procs([process for _, process in found], timeout=grace_s)
    killed = []
    for child, process in found:
        if process in alive and child.name != "postgres":
            with contextlib.suppress(psutil.Error):
                process.kill()
            killed.append(child.name)
    psutil.wait_procs(alive, timeout=grace_s)
    file.unlink(missing_ok=True)
    return killed
