"""The compose stack from nothing to a served model and back to nothing: `make compose-smoke`.

Makes sure of a Docker engine and a base image (deploy/engine.py), builds the images from this checkout, brings the
stack up under a project name and on ports of its own, deploys examples/filetype with the command line from outside,
calls it, looks at its description, metrics and events, kills control while calls go on, and takes everything down.
Exits non-zero with the containers' last lines where anything is not as promised. Images stay, nothing else does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
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
COMPOSE_FILE = ROOT / "deploy" / "compose" / "compose.yaml"
EXAMPLE = ROOT / "examples" / "filetype"
PROCESSES = ("control", "scheduler", "agent", "autoscaler", "router", "monitor")
SHARED = {"easel_contracts", "easel_kit", "easel_proto"}
UP_WITHIN_S, DEPLOYED_WITHIN_S, RESTARTED_WITHIN_S, SEEN_WITHIN_S = 180, 300, 60, 20


class Broken(Exception):
    """Something is not as promised; the text says what."""


def main() -> None:
    """Runs everything; always takes the stack down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with step("engine and base image"):
        run(sys.executable, ROOT / "deploy" / "engine.py")
    with step("images"):
        print(run(sys.executable, ROOT / "deploy" / "images.py").strip())
    stack = Stack(f"easel-smoke-{os.getpid()}")
    try:
        try_out(stack)
    except BaseException:
        print(stack.last_lines(), file=sys.stderr)
        raise
    finally:
        if not keep:
            with step("down"):
                stack.down()
    print(f"compose smoke passed in {time.monotonic() - began:.0f} s")


def try_out(stack: Stack) -> None:
    """What is promised, in order. Raises Broken."""
    with step("an image holds only its process"):
        for process in PROCESSES:
            check_image(process)
    with step("up"):
        stack.compose("up", "--detach", "--wait", "--wait-timeout", str(UP_WITHIN_S), "--pull", "never", "--no-build")
    with step("walls"):
        check_walls(stack)
    easel = stack.client()
    with step("create examples/filetype"):
        easel("create", EXAMPLE / "service.json", "--wait", "--timeout", DEPLOYED_WITHIN_S)
    with step("calls"):
        check_answers(easel)
    with step("desc, w, metrics, events"):
        check_views(easel)
    with step("kill -9 of control under calls"):
        kill_control(stack, easel)
    with step("delete"):
        easel("delete", "filetype", "--yes", "--wait")


class Stack:
    """One compose project with ports of its own."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.port, self.control_port = free_port(), free_port()
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("EASEL_", "COMPOSE_"))} | {
            "EASEL_PORT": str(self.port),
            "EASEL_CONTROL_PORT": str(self.control_port),
            "EASEL_HEALTH_INTERVAL": "2s",  # engines before 25 know no start_interval
        }

    def compose(self, *arguments: str) -> str:
        """Output of a compose command on this project."""
        command = [BIN / "docker-compose", "--project-name", self.project, "--file", COMPOSE_FILE, *arguments]
        return run(*command, env=self._environment)

    def container(self, process: str) -> dict[str, Any]:
        """What the engine knows about a process's container."""
        (found,) = json.loads(run("docker", "inspect", f"{self.project}-{process}-1"))
        return dict(found)

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


def check_image(process: str) -> None:
    """No other process's code is in a process's image."""
    listing = "import pkgutil; print(*[m.name for m in pkgutil.iter_modules() if m.name.startswith('easel_')])"
    image = f"easel/{process}:latest"
    found = run("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", listing)
    expect(set(found.split()), SHARED | {f"easel_{process}"}, f"packages of easel/{process}")


def check_walls(stack: Stack) -> None:
    """Ordinary users, read-only roots, and no way from replicas' container to the database."""
    for process in (*PROCESSES, "nats", "postgres", "envoy"):
        found = stack.container(process)
        user = "0:0" if process == "agent" else "10001:10001"
        expect(
            (found["Config"]["User"], found["HostConfig"]["ReadonlyRootfs"]), (user, True), f"{process}'s user, root"
        )
    for target, reached in (("nats:4222", True), ("postgres:5432", False)):
        reach = ["python", "-I", "-S", "-c", "import socket, sys; socket.create_connection(sys.argv[1].split(':'), 3)"]
        expect(
            succeeds(stack.compose, "exec", "--no-TTY", "agent", *reach, target),
            reached,
            f"the agent's container reaches {target}",
        )


def check_answers(easel: Callable[..., str]) -> None:
    """Every sample is what it is known to be."""
    samples = EXAMPLE / "samples"
    for name, label in json.loads((samples / "expected.json").read_text()).items():
        answer = json.loads(easel("predict", "filetype", "--body", f"@{samples / name}"))
        expect(answer["label"], label, name)


def check_views(easel: Callable[..., str]) -> None:
    """What an operator looks at."""
    description = json.loads(easel("desc", "filetype", "-o", "json"))
    expect(description["status"], "Running", "desc: status")
    (replica,) = json.loads(easel("w", "filetype", "-o", "json"))
    print(f"  replica {replica['name']} on {replica['node']} at {replica['address']}")
    eventually(lambda: json.loads(easel("metrics", "filetype", "-o", "json")), "metrics", SEEN_WITHIN_S)
    events = [json.loads(line) for line in easel("events", "-o", "json").splitlines()]
    print(f"  {len(events)} events")
    expect(any("filetype" in json.dumps(event) for event in events), True, "events of filetype")


def kill_control(stack: Stack, easel: Callable[..., str]) -> None:
    """Calls are answered while control is away, and the engine starts it again."""
    description = json.loads(easel("desc", "filetype", "-o", "json"))
    calls = Calls(f"http://127.0.0.1:{stack.port}/api/predict/filetype/", description["token"])
    before = stack.container("control")
    with calls.going_on():
        os.kill(int(before["State"]["Pid"]), signal.SIGKILL)
        eventually(lambda: stack.container("control")["RestartCount"] > before["RestartCount"], "restart",
                   RESTARTED_WITHIN_S)  # fmt: skip
        eventually(lambda: succeeds(easel, "desc", "filetype"), "control answers again", RESTARTED_WITHIN_S)
    print(f"  {calls.answered} calls answered meanwhile, {len(calls.failed)} failed")
    expect(calls.failed, [], "failed calls")
    expect(calls.answered > 0, True, "calls were made")


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


if __name__ == "__main__":
    try:
        main()
    except Broken as broken:
        sys.exit(f"compose smoke: {broken}")
