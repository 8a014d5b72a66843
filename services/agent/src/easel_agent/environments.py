"""Makes Python environments: one per set of requirements and Python version, shared by replicas, kept by hash.

Requirements run strangers' code while they are installed, so `uv` runs in the replica's kind of sandbox, as a user of
its own, and sees no secret. Replicas see the finished environment read-only.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

from uv import find_uv_bin

from easel_agent.cache import DirectoryCache
from easel_agent.decide.environment import SYSTEM_PATH
from easel_agent.decide.indexes import arguments, local_paths, uv_environment
from easel_agent.decide.layout import Target
from easel_agent.processes import Children, Launched, StartFailed
from easel_agent.sandbox import Sandbox, python_targets

LAST_LINES = 12


class BuildFailed(Exception):
    """The requirements cannot be installed; the text holds the installer's last lines."""


class Environments:
    """Virtual environments below `home`."""

    def __init__(self, home: Path, sandbox: Sandbox, children: Children, *, keep: int, timeout_s: float,
                 uid: int | None, env: Mapping[str, str]) -> None:  # fmt: skip
        self._cache = DirectoryCache(home / "environments", keep)
        self._home, self._sandbox, self._children = home, sandbox, children
        self._timeout_s, self._uid, self._env = timeout_s, uid, dict(env)
        self.building = 0
        """Environments that are being made now."""
        self.python = base_python()
        self.shims = home / "python"
        self._make_shims()

    async def get(self, requirements: str, event: Callable[[str], None]) -> Path:
        """The environment with these lines of requirements. Raises BuildFailed."""

        async def make(directory: Path) -> None:
            event("installing Python requirements")
            self.building += 1
            try:
                await self._build(directory, requirements)
            finally:
                self.building -= 1

        return await self._cache.get(self.key(requirements), make)

    def key(self, requirements: str) -> str:
        """Name of the environment: the same lines and the same Python give the same one."""
        lines = sorted({line.strip() for line in requirements.splitlines() if line.strip()})
        text = "\n".join([platform.python_implementation(), platform.python_version(), self.python, *lines])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def prune(self, used: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap."""
        self._cache.prune(used)

    def _make_shims(self) -> None:
        """A directory in which `python` and `python3` are the interpreter the agent itself stands on."""
        self.shims.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name in ("python", "python3"):
            shim = self.shims / name
            if not (shim.is_symlink() and os.readlink(shim) == self.python):
                shim.unlink(missing_ok=True)
                shim.symlink_to(self.python)

    async def _build(self, directory: Path, requirements: str) -> None:
        work = self._home / "builds" / directory.name
        # Beside the environments, below one mount, so that uv can link instead of copy.
        cache = directory.parent / ".uv-cache"
        await asyncio.to_thread(shutil.rmtree, work, True)
        for path in (work / "tmp", work / "root", work / "home", cache):
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
        (work / "home" / "requirements.txt").write_text(requirements)
        if self._uid is not None:
            for path in (directory, cache, work / "tmp", work / "home", work / "home" / "requirements.txt"):
                os.chown(path, self._uid, self._uid)
        try:
            uv = find_uv_bin()
            python = str(directory / "bin" / "python")
            await self._run(work, cache, [uv, "venv", "--quiet", "--no-project", "--allow-existing",
                            "--python", self.python, str(directory)])  # fmt: skip
            await self._run(work, cache, [uv, "pip", "install", "--quiet", "--python", python,
                            *arguments(self._env, pip_config(self._env)),
                            "-r", str(work / "home" / "requirements.txt")])  # fmt: skip
            if self._uid is not None:  # from here on nobody but root changes it
                await asyncio.to_thread(_give_to_root, directory)
        finally:
            await asyncio.to_thread(shutil.rmtree, work, True)

    async def _run(self, work: Path, cache: Path, argv: list[str]) -> None:
        targets = [
            Target(path=str(cache.parent), source=str(cache.parent), writable=True),
            Target(path=str(work / "home"), source=str(work / "home"), writable=True),
            Target(path=str(Path(argv[0]).parent), source=str(Path(argv[0]).parent)),
            *python_targets(self.python),
        ]
        indexes = uv_environment(self._env, pip_config(self._env))
        targets += [Target(path=path, source=path, owner=owner) for path, owner in _existing(local_paths(indexes))]
        env = {"PATH": SYSTEM_PATH, "HOME": str(work / "home"), "LANG": "C.UTF-8", "TMPDIR": "/tmp",
               **indexes, "UV_CACHE_DIR": str(cache),
               "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "hardlink"}  # fmt: skip
        if not self._sandbox.isolation.mount_ns:
            env["TMPDIR"] = str(work / "tmp")
        plan = self._sandbox.plan(argv=argv, env=env, cwd=str(work / "home"), root=work / "root", uid=self._uid,
                                  tmp=work / "tmp", targets=targets, memory_mib=1024)  # fmt: skip
        try:
            code, output = await run_to_end(plan, self._children, self._timeout_s)
        except StartFailed as error:
            raise BuildFailed(f"the installer could not be started ({error})") from error
        if code is None:
            raise BuildFailed(f"the installation took longer than {self._timeout_s:g} s")
        if code != 0:
            lines = [line for line in output.splitlines() if line.strip()]
            raise BuildFailed("\n".join(lines[-LAST_LINES:]) or f"the installer exited with code {code}")


async def run_to_end(plan: object, children: Children, timeout_s: float) -> tuple[int | None, str]:
    """Run a plan's program to its end; its exit code (None: it took too long) and its output. Raises StartFailed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    output = bytearray()
    loop = asyncio.get_running_loop()
    os.set_blocking(read, False)

    def take() -> None:
        data = os.read(read, 65536)
        output.extend(data)
        del output[: max(0, len(output) - 256 * 1024)]
        if not data:
            loop.remove_reader(read)

    launched = Launched(children, lambda _pid: None, lambda text: output.extend(text.encode() + b"\n"))
    loop.add_reader(read, take)
    try:
        launched.launch(plan, write, write)  # type: ignore[arg-type]
        os.close(write)
        async with asyncio.timeout(timeout_s):
            await launched.started
            code: int | None = await launched.exited
    except TimeoutError:
        code = None
    finally:
        launched.kill()
        await asyncio.shield(launched.gone)
        loop.remove_reader(read)
        _drain(read, output)
        os.close(read)
    return code, output.decode(errors="replace")


def _existing(paths: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Those that are there, with the uid of their owner (so that private directories can be read)."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path, os.stat(path).st_uid


def _drain(read: int, output: bytearray) -> None:
    while True:
        try:
            data = os.read(read, 65536)
        except BlockingIOError:
            return
        if not data:
            return
        output.extend(data)


def base_python() -> str:
    """The interpreter below the agent's own environment, as a real path."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return os.path.realpath(base)


def pip_config(env: Mapping[str, str]) -> dict[str, str]:
    """pip's configuration files of this machine merged: site-wide, user, of the interpreter, PIP_CONFIG_FILE."""
    home = Path(env.get("HOME") or Path.home())
    names = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf",
             f"{sys.base_prefix}/pip.conf", f"{sys.prefix}/pip.conf")  # fmt: skip
    files = [Path(name) for name in names]
    if env.get("PIP_CONFIG_FILE") and env["PIP_CONFIG_FILE"] != os.devnull:
        files.append(Path(env["PIP_CONFIG_FILE"]))
    merged: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself says what is wrong with it
        for section in ("global", "install"):
            if parser.has_section(section):
                merged |= dict(parser.items(section))
    return merged


def _give_to_root(directory: Path) -> None:
    for parent, folders, files in os.walk(directory):
        for name in (".", *folders, *files):
            os.chown(os.path.join(parent, name), 0, 0, follow_symlinks=False)
