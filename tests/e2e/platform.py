"""A whole platform for tests: started by the command line as a user would, in a directory of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easel_kit.testing import binary, eventually, free_port
from easel_sdk import Client
from easel_sdk.errors import EaselError

BASE_IMAGE = "python:3.11-slim-bookworm"
HERE = Path(__file__).resolve().parent


class Platform:
    """One running platform."""

    def __init__(self, home: Path, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None) -> None:
        """`env`: EASEL_* variables of who calls `easel`; those of the tests' own surroundings do not count."""
        self.home, self._prefix, self._env = home, prefix, env or {}
        self.port, self.control_port = free_port(), free_port()

    @property
    def data_url(self) -> str:
        """Where calls go."""
        return f"http://127.0.0.1:{self.port}"

    def up(self, *options: str) -> None:
        """`easel up --detach`; raises with what it printed where it fails."""
        self.easel("up", "--port", str(self.port), "--control-port", str(self.control_port), "--detach", *options)

    def down(self) -> None:
        """`easel down`."""
        self.easel("down")

    def easel(self, *arguments: str, code: int = 0) -> str:
        """Output of `easel ...`, which must exit with `code`."""
        done = self.try_easel(*arguments)
        assert done.returncode == code, f"easel {arguments} exited with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def try_easel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `easel ...` did."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EASEL_")} | {
            "COLUMNS": "200"
        } | self._env  # fmt: skip
        return subprocess.run(
            [*self._prefix, binary("easel"), "--home", str(self.home), *arguments], text=True, capture_output=True,
            check=False, env=environment, timeout=180,
        )  # fmt: skip

    def read(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.easel(*arguments, "-o", "json"))

    def config(self) -> dict[str, Any]:
        """What the home's config.json says."""
        found: dict[str, Any] = json.loads((self.home / "config.json").read_text())
        return found

    def pid(self, process: str) -> int:
        """Process id of a part of the platform."""
        return int(next(p["pid"] for p in self.read("status") if p["name"] == process))

    def client(self) -> Client:
        """The SDK, for this platform."""
        return Client(home=self.home)

    async def kill(self, process: str) -> None:
        """SIGKILL to a part; returns when another one in its place is up."""
        # In threads: load and changes in the same loop go on meanwhile.
        before = await asyncio.to_thread(self.pid, process)
        os.kill(before, signal.SIGKILL)

        async def replaced() -> bool:
            parts = await asyncio.to_thread(self.read, "status")
            return any(p["name"] == process and p["pid"] not in (None, before) and p["state"] == "running"
                       for p in parts)  # fmt: skip

        await eventually(replaced, 60)


@contextmanager
def running_platform(
    home: Path, prefix: tuple[str, ...] = (), options: tuple[str, ...] = (), env: dict[str, str] | None = None
) -> Iterator[Platform]:
    """Up, and down at the end whatever happened; `prefix`: a command that runs `easel`, e.g. as somebody else."""
    platform = Platform(home, prefix, env)
    try:
        platform.up(*options)
        yield platform
    finally:
        platform.try_easel("down")
        shutil.rmtree(home, ignore_errors=True)


class Chosen:
    """What runs the replicas of services made by `spec`; see the fixture `runtime`."""

    runtime = "process"


def spec(name: str, *, instance: int = 1, command: str | None = None, env: dict[str, str] | None = None,
         **changes: Any) -> dict[str, Any]:  # fmt: skip
    """A service.json around model_server.py; `changes` are further top-level keys."""
    cpu = 0.1
    container: dict[str, Any] = {"port": 8000, "command": command or "python model_server.py"}
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
    if Chosen.runtime == "docker":
        cpu = 0.25  # a hard limit there, where a process may use what is idle
        container["image"] = BASE_IMAGE
    return {
        "metadata": {"name": name, "instance": instance, "cpu": cpu, "memory": 256},
        "containers": [container],
        "storage": [{"mount_path": "/code", "local": {"path": str(HERE / "served")}}],
        **changes,
    }


class Executions:
    """A file outside the replicas in which every execution leaves a line."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.chmod(0o777)  # replicas have a uid of their own

    def of(self, document: dict[str, Any]) -> dict[str, Any]:
        """The service.json with the file mounted and named."""
        mount = {"mount_path": "/executions", "local": {"path": str(self._directory), "readOnly": False}}
        container = document["containers"][0]
        env = [*container.get("env", []), {"name": "EXECUTIONS", "value": "/executions/log"}]
        return document | {"storage": [*document["storage"], mount], "containers": [container | {"env": env}]}

    def forget(self) -> None:
        """Begins anew."""
        (self._directory / "log").unlink(missing_ok=True)

    def counts(self) -> Counter[str]:
        """How often each request was executed, whoever did it."""
        file = self._directory / "log"
        return Counter(file.read_text().split()) if file.exists() else Counter()


async def deploy(client: Client, document: dict[str, Any]) -> Any:
    """Creates a service and waits until it serves."""
    created = await client.services.create(document)
    return await client.wait(created.service_name, generation=created.generation, timeout_s=90)


async def remove(client: Client, name: str) -> None:
    """Deletes a service and waits until it is gone."""
    try:
        await client.services.delete(name)
    except EaselError:
        return
    await client.wait(name, "deleted", timeout_s=90)
