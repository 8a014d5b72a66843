"""Reading and removing control groups, alike in both versions."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Collection, Sequence
from pathlib import Path

MIB = 1024 * 1024
WITHOUT = {
    "cpu": "no share of CPU is kept for a replica",
    "pids": "a replica's processes are not counted",
}
"""What it means that a controller cannot be used here."""


def sentence(version: str, have: Collection[str]) -> str:
    """As Limits says it: the version, and what is not limited for want of a controller."""
    missing = [
        f"{WITHOUT[controller]} ({controller} is not delegated)" for controller in WITHOUT if controller not in have
    ]
    return f"{version}; {'; '.join(missing)}" if missing else version


def table(path: Path) -> dict[str, int]:
    """Lines of `name number`."""
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            found[name] = int(number)
    return found


def remove(path: Path) -> None:
    """Remove an empty group; the kernel may still be letting go of its last process, then `clean` finds it later."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise


def remove_children(parent: Path, keep: Collection[str]) -> int:
    """Remove empty groups below `parent`; those that still hold processes stay and are found again later."""
    removed = 0
    for child in _directories(parent):
        if child.name in keep:
            continue
        with contextlib.suppress(OSError):
            child.rmdir()
            removed += 1
    return removed


def _directories(parent: Path) -> Sequence[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
