"""What the parts of the demo share: the platform as a user speaks to it, and callers that count what came back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from easel_kit.testing import free_port

ROOT = Path(__file__).resolve().parent.parent
EASEL = Path(sys.executable).parent / "easel"
SPEC_FILES = {"process": "service.json", "docker": "service-docker.json"}
"""What the examples run as → the file of an example that says so."""


class Failed(Exception):
    """Something was not as promised."""


class Platform:
    """The scratch platform, spoken to by the command line as a user would."""

    def __init__(self, home: Path, runtime: str = "process") -> None:
        """`runtime`: what the examples run as, `process` or `docker`."""
        self.home, self.runtime = home, runtime
        self.port, self.control_port, self.web_port = free_port(), free_port(), free_port()

    def easel(self, *arguments: str) -> str:
        """Output of `easel ...`; ends the demo where it fails."""
        done = subprocess.run([EASEL, "--home", self.home, *arguments], text=True, capture_output=True, check=False)
        if done.returncode:
            raise Failed(f"easel {' '.join(arguments)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def show(self, *arguments: str, code: int = 0) -> None:
        """Runs `easel ...` with its output on the screen, as it comes; it must exit with `code`."""
        print(f"\n$ easel {' '.join(arguments)}", flush=True)
        found = subprocess.run([EASEL, "--home", self.home, *arguments], check=False).returncode
        if found != code:
            raise Failed(f"easel {' '.join(arguments)} exited with {found}, not {code}")

    def read(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.easel(*arguments, "-o", "json"))

    def spec(self, example: Path) -> Path:
        """An example's service.json for the runtime."""
        return example / SPEC_FILES[self.runtime]

    def kill_replica(self, replica: dict[str, Any]) -> None:
        """Its program ends at once, unasked, by the hand of somebody else."""
        if self.runtime == "docker":
            labels = (f"label=easel.replica={replica['name']}", "label=easel.container=0")
            container = _docker("ps", "--quiet", *(word for label in labels for word in ("--filter", label)))
            print(f"\ndocker kill {container}  (replica {replica['name']})")
            _docker("kill", container)
        else:
            print(f"\nkill -9 {replica['pid']}  (replica {replica['name']})")
            os.kill(int(replica["pid"]), signal.SIGKILL)


def make_images(examples: Sequence[Path]) -> None:
    """A Docker engine where there is none, and the images that these examples are deployed from."""
    subprocess.run([sys.executable, ROOT / "deploy" / "engine.py"], check=True)
    images = {
        json.loads((example / SPEC_FILES["docker"]).read_text())["containers"][0]["image"] for example in examples
    }
    missing = [image for image in sorted(images) if not _docker("images", "--quiet", image)]
    if missing:
        names = [image.removeprefix("easel/").partition(":")[0] for image in missing]
        subprocess.run([sys.executable, ROOT / "deploy" / "runtimes.py", *names], check=True)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], text=True, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"docker {' '.join(arguments)} exited with {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


class Load:
    """Callers that post one body after the other, each counting what came back. None repeats a request."""

    def __init__(self, url: str, token: str, bodies: list[bytes]) -> None:
        self._url, self._token, self._bodies = url, token, bodies
        self.answered, self.failures = 0, []  # type: int, list[tuple[float, str]]
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self, clients: int) -> None:
        """Begins calling."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=60), headers={"Authorization": self._token}
        )
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(clients)]

    async def stop(self) -> None:
        """Ends calling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def failed_since(self, moment: float) -> list[str]:
        """What failed after a moment of time.monotonic()."""
        return [what for at, what in self.failures if at >= moment]

    async def _call(self, number: int) -> None:
        assert self._session
        while True:
            body = self._bodies[number % len(self._bodies)]
            number += 1
            try:
                async with self._session.post(self._url, data=body) as response:
                    answer = await response.read()
                    if response.status == 200:
                        self.answered += 1
                    else:
                        self.failures.append((time.monotonic(), f"{response.status} {answer[:120]!r}"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failures.append((time.monotonic(), type(error).__name__))
                await asyncio.sleep(0.05)  # a dead gateway would be asked thousands of times a second


async def until(what: str, check: Any, deadline_s: float) -> float:
    """Seconds until check() is true; a Failed after the deadline."""
    started = time.monotonic()
    while time.monotonic() - started < deadline_s:
        if await asyncio.to_thread(check):
            return time.monotonic() - started
        await asyncio.sleep(0.25)
    raise Failed(f"{what}: not within {deadline_s:.0f} s")
