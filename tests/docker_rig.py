"""What tests of containers share: an engine, its command line, a small image, and a look at what is left behind."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.debian_packages import unpacked

ROOT = Path(__file__).resolve().parent.parent
SOCKET = "/var/run/docker.sock"
URL = f"unix://{SOCKET}"
BASE_IMAGE = "python:3.11-slim-bookworm"
SMALL_IMAGE = "easel-test/small:1"
"""BusyBox and nothing else, 2 MB: `sh`, `nc`, `httpd`, `sleep` and the like (its `wget -T` crashes)."""
TEST_LABEL = "easel.test=1"
AGENT_LABEL = "easel.agent"
GONE_WITHIN_S = 30.0


def docker(*arguments: str, config: Path | None = None, url: str = URL, given: bytes | None = None) -> str:
    """Output of `docker ...`, without the caller's own settings; `given`: its input. Fails with what it printed."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "DOCKER_CONFIG": str(config or empty), "DOCKER_HOST": url}
        done = subprocess.run(["docker", *arguments], env=environment, input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode().strip()


def make_small_image(url: str = URL) -> str:
    """Makes SMALL_IMAGE in an engine that does not have it; its name."""
    if not docker("images", "--quiet", SMALL_IMAGE, url=url):
        settings = ["--change", f"LABEL {TEST_LABEL}", "--change", "ENV PATH=/bin", "--change", 'CMD ["sh"]']
        docker("import", *settings, "-", SMALL_IMAGE, url=url, given=_small_tree())
    return SMALL_IMAGE


def _small_tree() -> bytes:
    """BusyBox with a link for each of its commands, and accounts."""
    program = unpacked("busybox-static") / "bin" / "busybox"
    commands = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tree:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tree.addfile(entry)
        tree.add(program, "bin/busybox")
        for command in commands:
            if command != "busybox":
                entry = tarfile.TarInfo(f"bin/{command}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tree.addfile(entry)
        for name, text in (("etc/passwd", "root:x:0:0::/root:/bin/sh\n"), ("etc/group", "root:x:0:\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tree.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def of_agents(url: str = URL) -> set[tuple[str, str]]:
    """(kind, id) of every container, network and volume that an agent made."""
    label = ["--quiet", "--filter", f"label={AGENT_LABEL}"]
    found = {"container": docker("ps", "--all", "--no-trunc", *label, url=url),
             "network": docker("network", "ls", "--no-trunc", *label, url=url),
             "volume": docker("volume", "ls", *label, url=url)}  # fmt: skip
    return {(kind, each) for kind, ids in found.items() for each in ids.split()}


@contextmanager
def nothing_left(url: str = URL, *kinds: str, within_s: float = GONE_WITHIN_S) -> Iterator[None]:
    """Fails where agents leave more behind than was there before. `kinds`: only of these (container, volume, network).

    Everything that agents made inside must have been ended inside, and nobody else may make anything meanwhile.
    """
    before = of_agents(url)
    yield
    end = time.monotonic() + within_s
    while left := {(kind, each) for kind, each in of_agents(url) - before if not kinds or kind in kinds}:
        assert time.monotonic() < end, f"left behind: {sorted(left)}"
        time.sleep(0.2)


@pytest.fixture(scope="session")
def engine() -> str:
    """URL of a Docker engine with BASE_IMAGE; made where there is none (as root)."""
    with Path(tempfile.gettempdir(), "easel-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            [sys.executable, ROOT / "deploy" / "engine.py"], capture_output=True, text=True, check=False
        )
    if made.returncode and os.geteuid() != 0:
        pytest.skip(f"no Docker engine for an ordinary user here: {made.stderr.strip()}")
    assert made.returncode == 0, made.stderr
    return URL


@pytest.fixture(scope="session")
def small_image(engine: str) -> str:
    """Name of SMALL_IMAGE, which the engine has."""
    return make_small_image()


@pytest.fixture
def no_leftovers(engine: str) -> Iterator[None]:
    """The test leaves no container, network or volume of an agent behind."""
    with nothing_left():
        yield
