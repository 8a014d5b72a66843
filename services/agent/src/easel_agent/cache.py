"""Directories that are dear to make, kept by key: made once at a time, complete or not there, least used removed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

COMPLETE = ".easel-complete"
"""Written last; a directory without it is a leftover of a crash. (Not renamed into place: the scripts of a Python
environment hold its path.)"""


class DirectoryCache:
    """Directories `home/<key>`; several callers that want the same share one build."""

    def __init__(self, home: Path, keep: int) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._home, self._keep = home, keep
        self._building: dict[str, asyncio.Task[Path]] = {}

    async def get(self, key: str, make: Callable[[Path], Awaitable[None]]) -> Path:
        """The directory of `key`, made by `make` into an empty one where needed. Raises what `make` raises, to all."""
        directory = self._home / key
        if (directory / COMPLETE).exists():
            os.utime(directory / COMPLETE)
            return directory
        task = self._building.get(key)
        if task is None:
            task = asyncio.create_task(self._build(directory, make))
            self._building[key] = task
            task.add_done_callback(lambda _: self._building.pop(key, None))
        return await asyncio.shield(task)

    async def _build(self, directory: Path, make: Callable[[Path], Awaitable[None]]) -> Path:
        await asyncio.to_thread(shutil.rmtree, directory, True)
        directory.mkdir(mode=0o755)
        try:
            await make(directory)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, directory, True)
            raise
        (directory / COMPLETE).touch()
        return directory

    def prune(self, used: Container[str]) -> None:
        """Remove leftovers, and the least lately used beyond the cap that no replica uses."""
        complete: list[tuple[float, Path]] = []
        for directory in self._home.iterdir():
            if directory.name in self._building or directory.name.startswith("."):
                continue
            marker = directory / COMPLETE
            if marker.exists():
                complete.append((marker.stat().st_mtime, directory))
            elif directory.is_dir():
                shutil.rmtree(directory, ignore_errors=True)
        for _, directory in sorted(complete)[: max(0, len(complete) - self._keep)]:
            if directory.name not in used:
                shutil.rmtree(directory, ignore_errors=True)
