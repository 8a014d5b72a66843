"""Files copied out of images, kept on the node by the image's digest and the path."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import uuid
from asyncio import to_thread
from collections.abc import Container
from functools import partial
from pathlib import Path
from posixpath import normpath

from easel_agent.cache import DirectoryCache
from easel_agent.decide.references import pinned
from easel_agent.sources.model import CannotFetch, Event, ImageFiles, Kept, SourceLimits, full_disk, no_space
from easel_agent.sources.sharing import Flights
from easel_contracts.spec import ImageSource

NEW = ".new-"
"""Begins the name of a copy that is being made."""
NO_ENGINE = ("mounting an image's files needs a Docker engine on the node, and this one has none. Place the service on "
             "a node with an engine, or take the files from git or an object store.")  # fmt: skip


class ImageTrees:
    """Directories `home/<key>`, with the files in `tree`. All methods are for the event loop's thread."""

    def __init__(self, home: Path, limits: SourceLimits) -> None:
        self._cache = DirectoryCache(home, limits.image_trees_kept)
        self._home = home
        self._flights: Flights[Kept] = Flights()
        for left in home.glob(f"{NEW}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def get(self, at: str, source: ImageSource, pin: str | None, images: ImageFiles | None, event: Event) -> Kept:
        """The files of the pinned image, or of what the tag names now. Raises CannotFetch."""
        path = normpath("/" + source.path.lstrip("/"))
        if pin is not None:
            found = self._find(pin, path)
            if found is not None:
                return found
        if images is None:
            raise CannotFetch(f"{at}: {NO_ENGINE}")
        reference = source.image if pin is None else pinned(source.image, pin)
        copy = partial(self._copy, at, reference, pin, path, images)
        return await self._flights.share(f"{reference} {path}", event, copy)

    def prune(self, held: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap, but nothing that is held."""
        self._cache.prune(held)

    def _find(self, pin: str, path: str) -> Kept | None:
        key = _key(pin, path)
        found = self._cache.find(key)
        return None if found is None else Kept(path=found / "tree", pin=pin, key=key)

    async def _copy(self, at: str, reference: str, pin: str | None, path: str, images: ImageFiles, say: Event) -> Kept:
        new = self._home / f"{NEW}{uuid.uuid4().hex}"
        new.mkdir(mode=0o700)
        try:
            say(f"{at}: copying {path} from {reference}")
            found = await self._ask(at, images, reference, path, new / "tree")
            if pin is not None and found != pin:
                raise CannotFetch(f"{at}: {reference} is {found} on this node, but the revision's first replica found "
                                  f"{pin}. Deploy again.")  # fmt: skip
            await to_thread(_settle, at, new / "tree")
            return self._find(found, path) or await self._keep(found, path, new / "tree")
        finally:
            await to_thread(shutil.rmtree, new, True)

    async def _ask(self, at: str, images: ImageFiles, reference: str, path: str, into: Path) -> str:
        try:
            return await images.files(reference, path, into)
        except CannotFetch as error:
            message = error.message if error.message.startswith(at) else f"{at}: {error.message}"
            raise CannotFetch(message, cause=error.cause, temporary=error.temporary) from error
        except OSError as error:
            if no_space(error):
                raise full_disk(at, self._home) from None
            raise

    async def _keep(self, pin: str, path: str, tree: Path) -> Kept:
        async def make(directory: Path) -> None:
            tree.rename(directory / "tree")

        key = _key(pin, path)
        directory = await self._cache.fill(key, make)
        return Kept(path=directory / "tree", pin=pin, key=key)


def _key(pin: str, path: str) -> str:
    return hashlib.sha256(f"{pin}\0{path}".encode()).hexdigest()[:40]


def _settle(at: str, tree: Path) -> None:
    """Readable to every user, writable to none, and nothing in it but files, directories and links."""
    if tree.is_symlink() or not tree.exists():
        raise CannotFetch(f"{at}: image.path is a link in the image, or nothing. Name what it leads to.")
    if tree.is_file():
        _settle_file(tree)
    for parent, folders, files in os.walk(tree):
        os.chmod(parent, 0o755)
        for name in (*folders, *files):
            entry = Path(parent, name)
            if not entry.is_symlink() and not entry.is_dir():
                _settle_file(entry)


def _settle_file(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        path.chmod(0o555 if mode & 0o111 else 0o444)
    else:
        path.unlink()  # a device or a pipe: a container would not get it either
