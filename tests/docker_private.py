"""A Docker engine of a test's own, which may be stopped and killed: the machine's is shared with everybody else.

It writes no packet filter rules, so its containers are reached from this machine by their addresses and reach nothing
beyond it. Root only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from easel_kit.testing import short_directory
from tests.docker_rig import docker, make_small_image

POOL_NETWORK = "10.213.0.0/16"
POOL = f"base={POOL_NETWORK},size=24"
"""Where its networks' addresses come from: not where the shared engine takes its own from."""
HERE, THERE = "10.214.0.1", "10.214.0.2"
"""The two ends between this machine's network and the engine's."""
ANSWERS_WITHIN_S = 60.0


class PrivateEngine:
    """One dockerd with its own data, containerd and socket."""

    def __init__(self, directory: Path, *options: str) -> None:
        """`options`: further ones of dockerd, such as `--live-restore`."""
        self.directory, self._options = directory, options
        self.socket = directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._network = f"ez{secrets.token_hex(4)}"
        """Namespace of its own: an engine without the usual bridge removes docker0, which is the shared engine's."""
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of dockerd."""
        assert self._child is not None
        return self._child.pid

    def connect(self) -> None:
        """Makes its network: containers' addresses lead there from this machine, and nowhere else."""
        name, inside = self._network, ["nsenter", f"--net=/run/netns/{self._network}"]
        for command in (
            ["ip", "netns", "add", name],
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name],
            ["ip", "address", "add", f"{HERE}/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            ["ip", "-n", name, "address", "add", f"{THERE}/30", "dev", "eth0"],
            ["ip", "-n", name, "link", "set", "eth0", "up"],
            ["ip", "-n", name, "link", "set", "lo", "up"],
            [*inside, "sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1"],
            ["ip", "route", "add", POOL_NETWORK, "via", THERE],
        ):
            subprocess.run(command, check=True)

    def start(self) -> None:
        """Returns when it answers."""
        assert self._child is None
        for stale in ("docker.pid", "exec/containerd/containerd.pid"):  # of one that was killed
            (self.directory / stale).unlink(missing_ok=True)
        command: list[str | Path] = [
            "nsenter", f"--net=/run/netns/{self._network}", "setpriv", "--pdeathsig", "TERM",
            "dockerd", "--host", self.url, "--data-root", self.directory / "data",
            "--exec-root", self.directory / "exec", "--pidfile", self.directory / "docker.pid", "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--default-address-pool", POOL, *self._options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as output:
            self._child = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        end = time.monotonic() + ANSWERS_WITHIN_S
        while not self._answers():
            assert self._child.poll() is None, self._log_end()
            assert time.monotonic() < end, f"dockerd does not answer: {self._log_end()}"
            time.sleep(0.1)

    def stop(self) -> None:
        """As an operator does; its containers end unless it has `--live-restore`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`: its containers run on, and so does its containerd for a moment."""
        self._end(signal.SIGKILL)

    def load(self, image: str) -> None:
        """Give it an image that the machine's engine has."""
        archive = self.directory / "image.tar"
        docker("save", "--output", str(archive), image)
        docker("load", "--quiet", "--input", str(archive), url=self.url)
        archive.unlink()

    def on_small_disk(self, size_mib: int) -> None:
        """Its data, on a disk of its own; before `start`."""
        (self.directory / "data").mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", self.directory / "data"], check=True
        )

    def fill(self) -> Path:
        """Nothing more can be written to its disk until the file is removed."""
        file = self.directory / "data" / "filler"
        with file.open("wb") as stream, contextlib.suppress(OSError):
            while True:
                stream.write(bytes(1 << 16))
                stream.flush()
        return file

    def remove(self) -> None:
        """Everything of it ends, whatever its state is."""
        if self._child is not None:
            with contextlib.suppress(AssertionError):
                containers = docker("ps", "--all", "--quiet", url=self.url).split()
                if containers:
                    docker("rm", "--force", "--volumes", *containers, url=self.url)
                own = docker("network", "ls", "--quiet", "--filter", "type=custom", url=self.url).split()
                if own:
                    docker("network", "rm", *own, url=self.url)
            self.stop()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):  # a killed one leaves them
            if line.split()[1].startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        subprocess.run(["ip", "netns", "delete", self._network], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._child is not None
        child, self._child = self._child, None
        child.send_signal(how)
        try:
            child.wait(ANSWERS_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _processes(self) -> list[int]:
        """Its containerd, the containers' shims and what runs in the containers."""
        mine = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.directory) in (directory / "cmdline").read_text():
                    mine.append(int(directory.name))
        return [pid for pid in mine if pid != os.getpid()]

    def _answers(self) -> bool:
        with contextlib.suppress(AssertionError):
            docker("version", "--format", "{{.Server.Version}}", url=self.url)
            return True
        return False

    def _log_end(self) -> str:
        return (self.directory / "log").read_text()[-2000:]


@contextmanager
def private_engine(*options: str, size_mib: int | None = None) -> Iterator[PrivateEngine]:
    """One that answers and has SMALL_IMAGE."""
    with short_directory() as directory:
        made = PrivateEngine(directory, *options)
        try:
            made.connect()
            if size_mib is not None:
                made.on_small_disk(size_mib)
            made.start()
            make_small_image(made.url)
            yield made
        finally:
            made.remove()


@pytest.fixture
def own_engine(engine: str) -> Iterator[PrivateEngine]:
    """A test's own engine, which it may kill."""
    with private_engine() as made:
        yield made


@pytest.fixture
def small_disk_engine(engine: str) -> Iterator[PrivateEngine]:
    """One that a test can fill."""
    with private_engine(size_mib=64) as made:
        yield made


@pytest.fixture
def live_engine(engine: str) -> Iterator[PrivateEngine]:
    """One whose containers run on without it."""
    with private_engine("--live-restore") as made:
        yield made
