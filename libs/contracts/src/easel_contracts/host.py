"""Whether two programs see the same files: an id of this machine and of the root file system they run on.

The platform tells its own (`EASEL_HOST_ID`, `Info.host_id`); a client compares. Equal ids mean that a local path
may be used in place; anything else means that it must be uploaded. The id says nothing else about the machine.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_SOURCES = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """32 hex digits: the same for programs that see the same root file system since the same boot.

    The root's device and inode are part of it, so that a container on the same kernel is another host: it has
    other files. Only a hash leaves the machine, as machine-id(5) asks.
    """
    root = os.stat("/")
    parts = [_read(path) for path in _SOURCES] + [f"{root.st_dev}:{root.st_ino}"]
    return hashlib.sha256("\n".join(["easel host", *parts]).encode()).hexdigest()[:32]


def _read(path: str) -> str:
    """The file's text, or nothing where there is no such file (slim images have no machine-id)."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
