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
        self._filling: set[str] = set()

    async def get(self, key: str, make: Callable[[Path], Awaitable[None]]) -> Path:
        """The directory of `key`, made by `make` into an empty one where needed. Raises what `make` raises, to all."""
        found = self.find(key)
        if found is not None:
            return found
        task = self._building.get(key)
        if task is None:
            task = asyncio.create_task(self.fill(key, make))
            self._building[key] = task
            task.add_done_callback(lambda _: self._building.pop(key, None))
        return await asyncio.shield(task)

    def find(self, key: str) -> Path | None:
        """The directory of `key` where it is there; it counts as used now."""
        directory = self._home / key
        try:
            os.utime(directory / COMPLETE)
        except FileNotFoundError:
            return None
        return directory

    async def fill(self, key: str, make: Callable[[Path], Awaitable[None]]) -> Path:
        """Make the directory of `key`; for callers that see to it themselves that only one does, and may cancel it."""
        directory = self._home / key
        self._filling.add(key)
        try:
            await asyncio.to_thread(shutil.rmtree, directory, True)
            directory.mkdir(mode=0o755)
            try:
                await make(directory)
                (directory / COMPLETE).touch()
            except BaseException:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, True))
                raise
        finally:
            self._filling.discard(key)
        return directory

    def prune(self, used: Container[str]) -> None:
        """Remove leftovers, and the least lately used beyond the cap that no replica uses."""
        complete: list[tuple[float, Path]] = []
        for directory in self._home.iterdir():
            if directory.name in self._building or directory.name in self._filling or directory.name.startswith("."):
                continue
            marker = directory / COMPLETE
            if marker.exists():
                complete.append((marker.stat().st_mtime, directory))
            elif directory.is_dir():
                shutil.rmtree(directory, ignore_errors=True)
        for _, directory in sorted(complete)[: max(0, len(complete) - self._keep)]:
            if directory.name not in used:
                shutil.rmtree(directory, ignore_errors=True)
