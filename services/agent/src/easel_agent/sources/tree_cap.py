"""Keeps the cache of object trees below its cap."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import time
from collections.abc import Container
from pathlib import Path

from easel_agent.cache import COMPLETE, DirectoryCache
from easel_agent.sources.blobs import Blobs
from easel_agent.sources.model import SourceLimits

GONE = ".gone-"
"""Begins the name of a tree that is being removed."""


async def prune(trees: DirectoryCache, home: Path, blobs: Blobs, held: Container[str], limits: SourceLimits) -> None:
    """Remove contents that no tree has, then the trees used least lately, until the cap is kept.

    Held trees stay, and those used within `spare_s`. Whether a tree may go is looked at in the event loop's thread, in
    which trees are also found: none is removed that somebody has just been given.
    """
    trees.prune(())  # leftovers of a crash: it keeps every tree that is complete
    before = time.time() - limits.spare_s
    known = await asyncio.to_thread(_known, home)
    size = await asyncio.to_thread(blobs.size) + sum(copied for _, _, copied in known)
    excess = size - (limits.objects_cache_mib << 20)
    if excess > 0:
        excess -= await asyncio.to_thread(blobs.remove_unlinked, excess, before)
    for _, key, copied in sorted(known):
        if excess <= 0:
            return
        if key not in held and _used_unix_s(home / key) <= before:
            gone = home / f"{GONE}{key}"
            (home / key).rename(gone)
            await asyncio.to_thread(shutil.rmtree, gone, True)
            excess -= copied
            excess -= await asyncio.to_thread(blobs.remove_unlinked, excess, math.inf)


def remove_gone(home: Path) -> None:
    """What an earlier run began to remove."""
    for gone in home.glob(f"{GONE}*"):
        shutil.rmtree(gone, ignore_errors=True)


def _known(home: Path) -> list[tuple[float, str, int]]:
    """(used at, key, bytes it takes beside the contents) of every tree."""
    found = []
    for directory in home.iterdir():
        with contextlib.suppress(FileNotFoundError, ValueError):
            copied = int((directory / "copied").read_text())
            found.append(((directory / COMPLETE).stat().st_mtime, directory.name, copied))
    return found


def _used_unix_s(directory: Path) -> float:
    try:
        return (directory / COMPLETE).stat().st_mtime
    except FileNotFoundError:
        return math.inf
