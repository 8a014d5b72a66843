"""Contents of objects on the node, each kept once whatever trees it is in: a tree's files are links to them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from easel_agent.decide.listing import Entry, version
from easel_agent.sources.object_stores import Opened
from easel_agent.sources.threads import Stop

PART = ".part-"
"""Begins the name of a content that is being written."""


class Changed(Exception):
    """The object is not what was listed any more."""


class Blobs:
    """Files `home/<key>`. For any thread."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o755)
        for left in home.glob(f"{PART}*"):
            left.unlink()
        self._home = home
        self._lock = threading.Lock()
        self._needed: Counter[str] = Counter()

    def need(self, keys: Iterable[str]) -> None:
        """These are not removed until `done`, whether they are there yet or not."""
        with self._lock:
            self._needed.update(list(keys))

    def done(self, keys: Iterable[str]) -> None:
        """Ends a `need`."""
        with self._lock:
            self._needed.subtract(list(keys))
            self._needed += Counter()  # drops those at zero

    def has(self, key: str, size: int) -> bool:
        """Is the content there, whole? (A machine that lost its power may have kept a name without its content.)"""
        try:
            return os.stat(self._home / key).st_size == size
        except FileNotFoundError:
            return False

    def download(self, store: Opened, entry: Entry, key: str, stop: Stop, took: Callable[[int], None]) -> None:
        """Fetch one object; `took` is told how many bytes came. Raises Changed, or what driver, disk and `stop` do."""
        stop.check()
        path, part = object_path(store, entry), self._home / f"{PART}{uuid.uuid4().hex}"
        try:
            store.files.get_file(path, str(part), callback=_watching(stop, took))
            if not part.exists():  # some drivers make no file of an empty object
                part.touch()
            info = store.files.info(path)
            if part.stat().st_size != entry.size or version(info) != entry.version:
                raise Changed
            part.chmod(0o444)
            part.rename(self._home / key)
        except FileNotFoundError:
            raise Changed from None
        finally:
            part.unlink(missing_ok=True)

    def place(self, key: str, at: Path) -> int:
        """Put a content into a tree; how many bytes that took beside what is here."""
        try:
            os.link(self._home / key, at)
        except OSError as error:
            # Another file system, one without hard links, or too many links to this one.
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(self._home / key, at)
            at.chmod(0o444)
            return at.stat().st_size
        return 0

    def size(self) -> int:
        """Bytes of everything that is here."""
        return sum(status.st_size for _, status in self._all())

    def remove_unlinked(self, most: int, before_unix_s: float) -> int:
        """Remove contents that no tree has, those first that have been without one longest, until `most` bytes are
        gone; none that is needed or that lost its last tree later than `before_unix_s`. Bytes removed."""
        found = []
        for name, status in self._all():
            if status.st_nlink == 1 and status.st_ctime <= before_unix_s and not name.startswith(PART):
                found.append((status.st_ctime, status.st_size, name))
        removed = 0
        for _, size, name in sorted(found):
            if removed >= most:
                break
            removed += size if self.remove(name) else 0
        return removed

    def remove(self, key: str) -> bool:
        """Remove a content unless it is needed or a tree has it; whether it was."""
        with self._lock:
            path = self._home / key
            if self._needed[key] or not path.exists() or path.stat().st_nlink != 1:
                return False
            path.unlink()
            return True

    def _all(self) -> Iterator[tuple[str, os.stat_result]]:
        for entry in os.scandir(self._home):
            with contextlib.suppress(FileNotFoundError):  # renamed or removed meanwhile
                yield entry.name, entry.stat(follow_symlinks=False)


def blob_key(store: Opened, entry: Entry) -> str:
    """Names a content: where it lies, its version and size."""
    told = json.dumps([store.place, object_path(store, entry), entry.version, entry.size])
    return hashlib.sha256(told.encode()).hexdigest()


def object_path(store: Opened, entry: Entry) -> str:
    """An object as its driver names it."""
    return f"{store.root}/{entry.name}" if entry.name else store.root


def _watching(stop: Stop, took: Callable[[int], None]) -> Any:
    from fsspec.callbacks import Callback  # only with the extras of the agent's package

    class Watching(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            stop.check()
            took(inc)

    return Watching()
