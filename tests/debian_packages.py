"""Programs out of Debian's packages, for tests, without installing them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(tempfile.gettempdir()) / "easel-test-packages"


def unpacked(package: str) -> Path:
    """The package's files, below a directory that is kept for the next run."""
    CACHE.mkdir(exist_ok=True)
    directory = CACHE / package
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            _unpack(package, directory)
    return directory


def _unpack(package: str, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        download = ["apt-get", "-qq", "download", package]
        done = subprocess.run(download, cwd=name, capture_output=True, text=True, check=False)
        if done.returncode:  # the lists are old, or there are none
            subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
            subprocess.run(download, cwd=name, check=True, capture_output=True)
        (archive,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg", "-x", archive.name, "files"], cwd=name, check=True)
        shutil.move(Path(name) / "files", directory)
