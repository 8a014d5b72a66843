"""A private registry (Debian's docker-registry) on this machine, which wants a user and a password."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from easel_kit.testing import free_port, short_directory
from tests.debian_packages import unpacked
from tests.docker_rig import docker

USER, PASSWORD = "easel-test", "not-a-secret"
HTPASSWD = "easel-test:$2b$05$iOkDqt2FE98kiaaj5ff6iOVXMVKLBocI5iV1INpDGRFRpRf2fcyhO"
"""bcrypt of PASSWORD with the least rounds: this registry protects nothing."""
STARTED_WITHIN_S = 20.0
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Where it listens, and what is asked of it in tests."""

    def __init__(self, port: int, directory: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self._directory, self._child = directory, None  # type: Path, subprocess.Popen[bytes] | None
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}},
        }
        (directory / "htpasswd").write_text(HTPASSWD + "\n")
        (directory / "config.yml").write_text(json.dumps(config))
        login = {"auths": {self.address: {"auth": self.login}}}
        self.client = directory / "client"
        """Settings of a command line that has logged in: `docker(..., config=registry.client)`."""
        self.client.mkdir()
        (self.client / "config.json").write_text(json.dumps(login))

    @property
    def login(self) -> str:
        """User and password as `dockerAuth` has them."""
        return base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    @property
    def wrong_login(self) -> str:
        """One that it refuses."""
        return base64.b64encode(f"{USER}:wrong".encode()).decode()

    def push(self, image: str, name: str) -> str:
        """Push an image of the engine as `name` (`team/app:1`); what it is called now, which the engine forgets."""
        reference = f"{self.address}/{name}"
        docker("tag", image, reference)
        try:
            docker("push", "--quiet", reference, config=self.client)
        finally:
            docker("rmi", reference)
        return reference

    def digest(self, name: str) -> str:
        """What a tag (`team/app:1`) names now: `sha256:…`."""
        repository, _, tag = name.rpartition(":")
        request = urllib.request.Request(
            f"http://{self.address}/v2/{repository}/manifests/{tag}", method="HEAD",
            headers={"Authorization": f"Basic {self.login}", "Accept": MANIFEST},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def start(self) -> None:
        """Returns when it answers; the kernel ends it with this process."""
        program = unpacked("docker-registry") / "usr" / "bin" / "docker-registry"
        with (self._directory / "log").open("ab") as output:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(program), "serve", str(self._directory / "config.yml")],
                stdout=output, stderr=output, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        end = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            assert self._child.poll() is None, (self._directory / "log").read_text()[-2000:]
            assert time.monotonic() < end, f"the registry does not answer within {STARTED_WITHIN_S} s"
            time.sleep(0.05)

    def stop(self) -> None:
        """Nobody listens any more; what was pushed is kept."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.kill()
            self._child.wait()
            self._child = None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Connections are made, and no answer comes."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.address}/v2/", timeout=2).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        return True


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry of one's own."""
    with short_directory() as directory:
        made = Registry(free_port(), directory)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def registry(engine: str) -> Iterator[Registry]:
    """One for all tests; whoever stops it starts it again."""
    with running_registry() as made:
        yield made
