"""Python requirements for containers: installed once per image and set of lines, by the image's own pip, and kept.

Replicas see the result read-only on their PYTHONPATH, so the tenth replica starts as fast as one without
requirements. The image needs python3 and pip, nothing else. What an installation runs is a stranger's code: it runs
in a container of its own, with the same rights as a replica.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Container, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec import Struct

from easel_agent.cache import DirectoryCache
from easel_agent.decide.containers import CAPABILITIES, PACKAGES
from easel_agent.decide.image_errors import explain_container
from easel_agent.docker.engine import Engine, EngineError
from easel_agent.docker.images import Found
from easel_agent.docker.network import Network
from easel_agent.model import Refusal
from easel_agent.runtime import CannotPrepare

LAST_LINES = 12
LISTED = "/opt/easel/requirements.txt"
PASSED = ("index-url", "extra-index-url", "trusted-host", "timeout")
"""pip's settings of the node that a container gets: those that name no path of the node."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be installed; nothing where both are empty."""

    lines: str
    file: str | None = None
    """A requirements file inside the image."""

    def __bool__(self) -> bool:
        return bool(self.lines or self.file)


class Packages:
    """Directories of installed packages."""

    def __init__(self, engine: Engine, home: Path, *, keep: int, timeout_s: float, network: Network,
                 labels: Mapping[str, str], pip: Mapping[str, str]) -> None:  # fmt: skip
        self._engine, self._cache, self._timeout_s = engine, DirectoryCache(home, keep), timeout_s
        self._network, self._labels, self._pip = network, dict(labels), dict(pip)

    async def get(self, image: Found, wanted: Wanted, event: Callable[[str], None]) -> Path:
        """Where the packages are. Raises CannotPrepare or EngineAway."""

        async def make(directory: Path) -> None:
            event("installing Python requirements with the image's pip")
            lines = directory.parent / f".{directory.name}.txt"
            lines.write_text(wanted.lines)
            lines.chmod(0o644)
            try:
                await self._network.ensure()
                await self._install(directory, lines, image, wanted.file or LISTED)
            finally:
                lines.unlink(missing_ok=True)

        lines = sorted({line.strip() for line in wanted.lines.splitlines() if line.strip()})
        key = hashlib.sha256("\n".join([image.id, wanted.file or "", *lines]).encode()).hexdigest()[:32]
        return await self._cache.get(key, make)

    def prune(self, used: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap."""
        self._cache.prune(used)

    async def _install(self, directory: Path, lines: Path, image: Found, listed: str) -> None:
        os.chmod(directory, 0o755)
        words = ["python3", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir",
                 "--root-user-action=ignore", "--target", PACKAGES, "-r", listed]  # fmt: skip
        body = self._body(directory, lines, image, words)
        try:
            made = await self._engine.ask("POST", "containers/create", data=body)
        except EngineError as error:
            raise CannotPrepare(explain_container("create", error.status, error.message, tuple(words))) from error
        path = f"containers/{made['Id']}"
        try:
            await self._run(path, words)
        finally:
            await self._engine.ask("DELETE", path, params={"force": "1", "v": "1"})

    async def _run(self, path: str, words: list[str]) -> None:
        try:
            await self._engine.ask("POST", f"{path}/start")
        except EngineError as error:
            why = explain_container("start", error.status, error.message, tuple(words)).message
            message = f"The Python requirements cannot be installed: the image needs python3 and pip for them. {why}"
            raise CannotPrepare(Refusal(cause="requirements", message=message)) from error
        output = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                parameters = {"follow": "1", "stdout": "1", "stderr": "1"}
                async with aclosing(self._engine.frames(f"{path}/logs", params=parameters)) as pieces:
                    async for _, piece in pieces:
                        output += piece
                        del output[: max(0, len(output) - (1 << 16))]
                found = await self._engine.ask("POST", f"{path}/wait", timeout_s=self._timeout_s)
        except TimeoutError:
            message = f"The Python requirements were not installed within {self._timeout_s:g} s."
            raise CannotPrepare(Refusal(cause="requirements", message=message)) from None
        if found["StatusCode"]:
            told = [line for line in output.decode(errors="replace").splitlines() if line.strip()][-LAST_LINES:]
            last = " ".join(line.strip() for line in told if "ERROR" in line)[-400:] or " ".join(told[-3:])[-400:]
            message = f"The Python requirements cannot be installed: {last}"
            raise CannotPrepare(Refusal(cause="requirements", message=message))

    def _body(self, directory: Path, lines: Path, image: Found, words: list[str]) -> dict[str, Any]:
        env = {f"PIP_{name.replace('-', '_').upper()}": self._pip[name] for name in PASSED if self._pip.get(name)}
        mounts = [{"Type": "bind", "Source": str(directory), "Target": PACKAGES},
                  {"Type": "bind", "Source": str(lines), "Target": LISTED, "ReadOnly": True}]  # fmt: skip
        return {
            "Image": image.id, "User": "0:0", "Entrypoint": words, "Cmd": [], "WorkingDir": "/",
            "Env": [f"{name}={value}" for name, value in env.items() if "file:" not in value],
            "Labels": {**self._labels, "easel.build": "requirements"},
            "HostConfig": {"NetworkMode": self._network.name, "Mounts": mounts, "CapDrop": ["ALL"],
                           "CapAdd": list(CAPABILITIES), "SecurityOpt": ["no-new-privileges:true"],
                           "Memory": 2 << 30, "PidsLimit": 512,
                           "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
        }  # fmt: skip
