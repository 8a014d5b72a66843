"""Writes the files of a git tree to a directory. The tree is a stranger's: nothing of it may land outside.

Files come first, into directories made here, and never through a link: links are made last, and those that lead out of
the tree are taken away again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dulwich.object_store import BaseObjectStore
from dulwich.objects import S_ISGITLINK, Blob, ObjectID
from msgspec import Struct

from easel_agent.sources.git_client import TooLarge
from easel_agent.sources.threads import Stop

MAX_FILES = 500_000


class BadTree(Exception):
    """The tree cannot be written; the text says why."""


class Written(Struct, kw_only=True):
    """What became of a tree."""

    files: int = 0
    size: int = 0
    """In bytes."""
    submodules: int = 0
    links_left_out: int = 0
    large_files: bool = False
    """Some files are kept by git-lfs: the tree holds only pointers to them."""


def write_tree(store: BaseObjectStore, tree: ObjectID, root: Path, stop: Stop, max_bytes: int) -> Written:
    """Fill an empty directory. Raises BadTree, TooLarge, OSError, or what `stop` raises."""
    written = Written()
    links: list[tuple[Path, bytes]] = []
    for path, mode, sha in _entries(store, tree):
        stop.check()
        written.files += 1
        if written.files > MAX_FILES:
            raise BadTree(f"it has more than {MAX_FILES} files")
        place = _place(root, path)
        if S_ISGITLINK(mode):
            written.submodules += 1
            place.mkdir(mode=0o755)
            continue
        blob = store[sha]
        if not isinstance(blob, Blob):
            raise BadTree(f"{_shown(path)} is no file")
        data = blob.as_raw_string()
        written.size += len(data)
        if written.size > max_bytes:
            raise TooLarge
        if stat.S_ISLNK(mode):
            links.append((place, data))
            continue
        _write(place, data, 0o555 if mode & 0o100 else 0o444)
        if place.name == ".gitattributes" and b"filter=lfs" in data:
            written.large_files = True
    written.links_left_out = _link(root, links)
    return written


def _entries(store: BaseObjectStore, tree: ObjectID) -> Iterator[tuple[bytes, int, ObjectID]]:
    for entry in store.iter_tree_contents(tree):
        if entry.path is None or entry.mode is None or entry.sha is None:
            raise BadTree("an entry has no name")
        yield entry.path, entry.mode, entry.sha


def _place(root: Path, path: bytes) -> Path:
    """Where an entry goes; the directories above it are made."""
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") or part.lower() == b".git" or b"\0" in part for part in parts):
        raise BadTree(f"{_shown(path)} is no name that a file may have")
    place = root
    for part in parts[:-1]:
        place = place / os.fsdecode(part)
        try:
            place.mkdir(mode=0o755)
        except FileExistsError:
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise BadTree(f"{_shown(path)} is below something that is no directory") from None
    return place / os.fsdecode(parts[-1])


def _write(place: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise BadTree(f"{place.name} is there twice") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        os.fchmod(descriptor, mode)


def _link(root: Path, links: list[tuple[Path, bytes]]) -> int:
    """Make the links; how many were left out because they lead out of the tree, in whatever roundabout way."""
    made: list[Path] = []
    for place, text in links:
        # A link made just before may stand where this one's directory should be: nothing goes through it.
        if not stat.S_ISDIR(place.parent.lstat().st_mode) or os.path.realpath(place.parent) != os.path.join(
            os.path.realpath(root), *place.parent.relative_to(root).parts
        ):
            raise BadTree(f"{place.name} is below a link")
        try:
            os.symlink(os.fsdecode(text), place)
        except FileExistsError:
            raise BadTree(f"{place.name} is there twice") from None
        except ValueError:
            raise BadTree(f"{place.name} leads to no possible path") from None
        made.append(place)
    top = os.path.realpath(root) + os.sep
    left_out = 0
    while outward := [place for place in made if not (os.path.realpath(place) + os.sep).startswith(top)]:
        for place in outward:
            place.unlink()
        left_out += len(outward)
        made = [place for place in made if place not in set(outward)]
    return left_out


def _shown(path: bytes) -> str:
    return repr(path.decode(errors="replace"))[:200]
