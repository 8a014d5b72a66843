"""What the compose smoke test stands on: a compose project, a caller, commands and what is expected of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from easel_kit.testing import free_port

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COMPOSE = ROOT / "deploy" / "compose"
UP_WITHIN_S = 180


class Broken(Exception):
    """Something is not as promised; the text says what."""


class Stack:
    """One compose project with ports of its own."""

    def __init__(self, project: str, home: Path) -> None:
        """`home`: for the agent's data where its replicas are containers."""
        self.project = project
        self.files = [COMPOSE / "compose.yaml"]
        self.port, self.control_port, self.web_port = free_port(), free_port(), free_port()
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("EASEL_", "COMPOSE_"))} | {
            "EASEL_PORT": str(self.port),
            "EASEL_CONTROL_PORT": str(self.control_port),
            "EASEL_WEB_PORT": str(self.web_port),
            "EASEL_HEALTH_INTERVAL": "2s",  # engines before 25 know no start_interval
            "EASEL_AGENT_HOME": str(home),
        }

    def compose(self, *arguments: str) -> str:
        """Output of a compose command on this project."""
        files = [word for file in self.files for word in ("--file", file)]
        command = [BIN / "docker-compose", "--project-name", self.project, *files, *arguments]
        return run(*command, env=self._environment)

    def up(self) -> None:
        """Returns when everything is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN_S), "--pull", "never", "--no-build")

    def container(self, process: str) -> dict[str, Any]:
        """What the engine knows about a process's container."""
        (found,) = json.loads(run("docker", "inspect", f"{self.project}-{process}-1"))
        return dict(found)

    def replicas(self) -> set[str]:
        """Ids of the containers that the agent made."""
        mine = ["--filter", f"network={self.project}_replicas", "--filter", "label=easel.agent"]
        return set(run("docker", "ps", "--all", "--quiet", *mine).split())

    def client(self) -> Callable[..., str]:
        """The command line, outside of the containers, with the key that the stack hands out."""
        key = self.compose("run", "--rm", "--no-TTY", "access-key").strip()
        at = ["--server", f"127.0.0.1:{self.control_port}", "--access-key", key]
        return lambda *arguments: run(BIN / "easel", *at, *arguments)

    def last_lines(self) -> str:
        """The end of every container's log, and their states."""
        with contextlib.suppress(Broken):
            return self.compose("ps", "--all") + self.compose("logs", "--tail", "30")
        return "no containers"

    def down(self) -> None:
        """Takes away containers, networks and volumes; raises Broken where one is left."""
        self.compose("--profile", "tools", "down", "--volumes", "--remove-orphans", "--timeout", "20")
        mine = ["--quiet", "--filter", f"label=com.docker.compose.project={self.project}"]
        left = [run("docker", *kind, *mine).split() for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"])]
        expect(left, [[], [], []], "containers, volumes, networks left")


class Calls:
    """One caller of the model, again and again."""

    def __init__(self, url: str, token: str) -> None:
        self._request = urllib.request.Request(url, data=b"print('hello')\n" * 20, headers={"Authorization": token})
        self.answered = 0
        self.failed: list[str] = []

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Calls as long as the block runs."""
        stop = threading.Event()
        caller = threading.Thread(target=self._call, args=(stop,))
        caller.start()
        try:
            yield
        finally:
            stop.set()
            caller.join()

    def _call(self, stop: threading.Event) -> None:
        while not stop.wait(0.02):
            try:
                with urllib.request.urlopen(self._request, timeout=10) as answer:
                    answer.read()
                self.answered += 1
            except (urllib.error.URLError, OSError) as error:
                self.failed.append(repr(error))


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Says what is done and how long it took."""
    print(f"- {name}", flush=True)
    began = time.monotonic()
    yield
    print(f"  {time.monotonic() - began:.1f} s", flush=True)


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """Output of a command; raises Broken with what it said where it fails."""
    text = [str(part) for part in command]
    done = subprocess.run(text, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join("KEY" if part.startswith("ek_") else part for part in text)
        raise Broken(f"{shown} exited with {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def succeeds(command: Callable[..., str], *arguments: object) -> bool:
    """Whether a command exits with 0."""
    try:
        command(*arguments)
    except Broken:
        return False
    return True


def expect(found: object, wanted: object, what: str) -> None:
    """Raises Broken where something is not as promised."""
    if found != wanted:
        raise Broken(f"{what}: {found!r}, expected {wanted!r}")


def eventually(look: Callable[[], Any], what: str, within_s: float) -> None:
    """Waits until something is seen; raises Broken in the end."""
    deadline = time.monotonic() + within_s
    while not look():
        if time.monotonic() > deadline:
            raise Broken(f"{what}: not within {within_s:g} s")
        time.sleep(0.3)
