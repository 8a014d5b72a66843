"""What the parts of the demo share: the platform as a user speaks to it, and callers that count what came back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from easel_kit.testing import free_port

EASEL = Path(sys.executable).parent / "easel"


class Failed(Exception):
    """Something was not as promised."""


class Platform:
    """The scratch platform, spoken to by the command line as a user would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port, self.control_port = free_port(), free_port()

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
