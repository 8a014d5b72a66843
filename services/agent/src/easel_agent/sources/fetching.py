"""Turns the mounts of a revision into directories and files of the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from easel_agent.sources.git_trees import GitTrees
from easel_agent.sources.image_trees import ImageTrees
from easel_agent.sources.model import (
    CannotFetch,
    Event,
    Fetched,
    ImageFiles,
    Kept,
    Login,
    SourceLimits,
    full_disk,
    no_space,
)  # fmt: skip
from easel_agent.sources.object_stores import ObjectStores
from easel_agent.sources.object_trees import ObjectTrees
from easel_agent.sources.writable import empty_directory, own_copy
from easel_contracts.spec import GitSource, ImageSource, Mount, ObjectSource, RunSpec, ScratchSource

KINDS = {GitSource: "git", ImageSource: "image", ObjectSource: "oss"}
"""As in the keys of the service.json, and so of pins."""
GIT, IMAGE, OBJECT = "git/", "image/", "object/"
"""Begin the keys of what is held."""


class Sources:
    """The node's caches of fetched sources, below `home`. All methods are for the event loop's thread.

    What one replica fetches, others that want the same wait for; where nobody waits any more, it is ended. Any call may
    be cancelled: nothing half is left that a later call would take for whole.
    """

    def __init__(self, home: Path, limits: SourceLimits, stores: ObjectStores) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._home = home
        # Threads of their own: downloads must not keep the agent's other work waiting, nor each other's kind.
        self._pools = [ThreadPoolExecutor(count, thread_name_prefix=name) for name, count in
                       (("git", 4), ("objects", limits.objects_parallel + 2))]  # fmt: skip
        self._git = GitTrees(home / "git", limits, self._pools[0])
        self._images = ImageTrees(home / "images", limits)
        self._objects = ObjectTrees(home / "objects", limits, stores, self._pools[1])

    async def fetch(self, run: RunSpec, directory: Path, logins: Mapping[int, Login], event: Event,
                    images: ImageFiles | None) -> Fetched:  # fmt: skip
        """Everything that the mounts of `run` need from elsewhere; may be called again, also after a restart.

        `directory` is the replica's own; `logins` are by the mount's number; `event` takes lines for the replica's log;
        `images` is None where the node has no engine. Pins of `run` are obeyed. Raises CannotFetch.
        """
        mounts = list(enumerate(run.revision.mounts))
        kept = await _together([partial(self._mount, number, mount, run.pins, directory, logins, event, images)
                                for number, mount in mounts])  # fmt: skip
        found = [(number, mount, one) for (number, mount), one in zip(mounts, kept, strict=True) if one is not None]
        return Fetched(
            paths={mount.mount_path: one.path for _, mount, one in found},
            pins={at(number, mount): one.pin for number, mount, one in found if one.pin},
            held=tuple(sorted({one.key for _, _, one in found if one.key})),
        )

    async def prune(self, held: Container[str]) -> None:
        """Keep the caches below their caps. `held`: Fetched.held of every replica that is not over."""
        self._git.prune(_Below(GIT, held))
        self._images.prune(_Below(IMAGE, held))
        await self._objects.prune(_Below(OBJECT, held))

    def close(self) -> None:
        """The agent ends. Calls of `fetch` must have ended or been cancelled."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _mount(self, number: int, mount: Mount, pins: Mapping[str, str], directory: Path,
                     logins: Mapping[int, Login], event: Event, images: ImageFiles | None) -> Kept | None:  # fmt: skip
        name = at(number, mount)
        pin = pins.get(name)
        match mount.source:
            case GitSource() as source:
                prefix, kept = GIT, await self._git.get(name, source, pin, logins.get(number), event)
            case ImageSource() as source:
                prefix, kept = IMAGE, await self._images.get(name, source, pin, images, event)
            case ObjectSource() as source:
                prefix, kept = OBJECT, await self._objects.get(name, source, pin, event)
            case ScratchSource(medium="disk") as source:
                return await _scratch(number, source, directory, event)
            case _:
                return None
        path = kept.path
        if not mount.read_only:
            path = directory / f"storage-{number}"
            await self._own_copy(name, kept.path, path, event)
        return Kept(path=path, pin=kept.pin, key=prefix + kept.key)

    async def _own_copy(self, name: str, shared: Path, path: Path, event: Event) -> None:
        if path.exists():
            return
        event(f"{name}: the replica gets a copy that it may write to; what it writes is gone with it")
        try:
            await asyncio.to_thread(own_copy, shared, path)
        except OSError as error:
            if no_space(error):
                raise full_disk(name, path.parent) from None
            raise CannotFetch(f"{name}: it cannot be copied for the replica ({error.strerror}).") from None


def at(number: int, mount: Mount) -> str:
    """A mount as errors and pins name it, e.g. `storage[1].git`."""
    kind = KINDS.get(type(mount.source)) if mount.source is not None else None
    return f"storage[{number}].{kind or 'empty_dir'}"


async def _scratch(number: int, source: ScratchSource, directory: Path, event: Event) -> Kept:
    path = directory / f"empty-{number}"
    if source.size_mib is not None and not path.exists():
        event(f"storage[{number}].empty_dir: its size is not limited to {source.size_mib} MiB on this node, only by "
              'the disk; "medium": "memory" is limited')  # fmt: skip
    return Kept(path=await asyncio.to_thread(empty_directory, path), pin="", key="")


async def _together(calls: list[Callable[[], Coroutine[Any, Any, Kept | None]]]) -> list[Kept | None]:
    """The results of all; the first that fails ends the others."""
    tasks = [asyncio.create_task(call()) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Below:
    """The keys of one kind among all that are held."""

    def __init__(self, prefix: str, held: Container[str]) -> None:
        self._prefix, self._held = prefix, held

    def __contains__(self, key: object) -> bool:
        return f"{self._prefix}{key}" in self._held
