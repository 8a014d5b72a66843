"""Prefixes of object stores as directories of the node.

A listing (names, sizes, versions) is hashed to what names the tree, and is the revision's pin. Contents are kept once,
by where they lie, version and size; a tree is made of links to them. A second replica with the same listing downloads
nothing; one changed object of many is one download.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from msgspec import Struct

from easel_agent.cache import DirectoryCache
from easel_agent.decide.listing import Entry, digest, entries, refusal
from easel_agent.sources.blobs import Blobs, Changed, blob_key
from easel_agent.sources.model import CannotFetch, Event, Kept, SourceLimits, amount, full_disk, no_space
from easel_agent.sources.object_errors import explain
from easel_agent.sources.object_stores import ObjectStores, Opened
from easel_agent.sources.sharing import Flights
from easel_agent.sources.threads import Stop, Stopped, T, in_thread
from easel_agent.sources.tree_cap import prune, remove_gone
from easel_contracts.spec import ObjectSource

ATTEMPTS = 3
"""A listing whose objects change while they are fetched is taken anew so often."""


class ObjectTrees:
    """Directories `home/trees/<key>` with the files in `tree`, and contents in `home/blobs`. For the event loop's
    thread."""

    def __init__(self, home: Path, limits: SourceLimits, stores: ObjectStores, pool: Executor) -> None:
        self._blobs = Blobs(home / "blobs")
        self._trees = DirectoryCache(home / "trees", keep=1 << 30)
        self._home, self._limits, self._stores, self._pool = home, limits, stores, pool
        self._flights: Flights[Kept] = Flights()
        remove_gone(home / "trees")

    async def get(self, at: str, source: ObjectSource, pin: str | None, event: Event) -> Kept:
        """The tree of the pinned listing, or of what is there now. Raises CannotFetch."""
        found = None if pin is None else self._find(pin)
        if found is not None:
            return found
        fetch = partial(self._fetch, at, source, pin)
        return await self._flights.share(f"{source.url} {source.endpoint} {pin}", event, fetch)

    async def prune(self, held: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap, but nothing that is held, needed or was used just now."""
        await prune(self._trees, self._home / "trees", self._blobs, held, self._limits)

    async def _fetch(self, at: str, source: ObjectSource, pin: str | None, say: Event) -> Kept:
        stop = Stop(self._limits.objects_timeout_s)
        job = _Job(at=at, source=source, stop=stop, say=say)
        store = await self._blocking(job, partial(self._stores.open, at, source))
        for _ in range(ATTEMPTS):
            listed = await self._listed(job, store)
            name = digest(source.url, source.endpoint, listed)
            if pin is not None and name != pin:
                raise CannotFetch(f"{at}: {source.url} has changed since the revision's first replica read it, and "
                                  "this node has no copy of what was there. Deploy again to take the new.")  # fmt: skip
            found = self._find(name)
            if found is not None:
                return found
            try:
                return await self._make(job, store, listed, name)
            except Changed:
                say(f"{at}: {source.url} changed while it was read; looking again")
        raise CannotFetch(f"{at}: {source.url} changed each time while it was read. Deploy when it is complete.",
                          temporary=True)  # fmt: skip

    async def _listed(self, job: _Job, store: Opened) -> tuple[Entry, ...]:
        listed = await self._blocking(job, partial(_list, store))
        if not listed:
            raise CannotFetch(f"{job.at}: nothing lies below {job.source.url}. Correct the path, or put files there.")
        why = refusal(listed)
        if why is not None:
            raise CannotFetch(f"{job.at}: {job.source.url} cannot be mounted: {why}. Rename or remove it.")
        return listed

    async def _make(self, job: _Job, store: Opened, listed: Sequence[Entry], name: str) -> Kept:
        keys = {blob_key(store, entry): entry for entry in listed if not entry.directory}
        self._blobs.need(keys)
        try:
            await self._download(job, store, keys)

            async def make(directory: Path) -> None:
                link = partial(_link, self._blobs, store, listed, directory, job.stop)
                (directory / "copied").write_text(str(await self._blocking(job, link)))

            await self._trees.fill(_key(name), make)
        finally:
            self._blobs.done(keys)
            if job.full:  # else what came is kept: another try goes on from there
                await asyncio.shield(asyncio.to_thread(lambda: [self._blobs.remove(key) for key in job.came]))
        found = self._find(name)
        assert found is not None
        return found

    async def _download(self, job: _Job, store: Opened, keys: dict[str, Entry]) -> None:
        missing = await self._blocking(
            job, lambda: {key: entry for key, entry in keys.items() if not self._blobs.has(key, entry.size)}
        )
        if not missing:
            return
        job.begin(missing.values())
        free = shutil.disk_usage(self._home).free
        if job.size > free:
            raise CannotFetch(f"{job.at}: no space is left on the node: {job.source.url} needs {amount(job.size)}, "
                              f"{amount(free)} are free below {self._home}. Free some, or use another.")  # fmt: skip
        job.say(f"{job.at}: fetching {job.files} of {len(keys)} files, {amount(job.size)}, from {job.source.url}")
        begun = time.monotonic()
        await self._workers(job, store, iter(missing.items()))
        job.say(f"{job.at}: {job.files} files, {amount(job.size)} in {time.monotonic() - begun:.1f} s")

    async def _workers(self, job: _Job, store: Opened, todo: Iterator[tuple[str, Entry]]) -> None:
        stop = job.stop.again()  # ended for one worker, it is ended for all

        def fetch(key: str, entry: Entry) -> None:
            self._blobs.download(store, entry, key, stop, job.took)
            job.came.append(key)  # in the thread: it has come also where nobody waits for that any more

        async def work() -> None:
            for key, entry in todo:
                await self._blocking(job, partial(fetch, key, entry), stop)

        workers = {asyncio.create_task(work()) for _ in range(min(self._limits.objects_parallel, job.files))}
        pending = workers
        try:
            while pending:
                done, pending = await asyncio.wait(pending, timeout=self._limits.progress_every_s,
                                                   return_when=asyncio.FIRST_EXCEPTION)  # fmt: skip
                for task in done:
                    task.result()
                job.progress(ended=not pending)
        finally:
            stop.tell()
            for task in pending:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _blocking(self, job: _Job, work: Callable[[], T], stop: Stop | None = None) -> T:
        try:
            return await in_thread(self._pool, stop or job.stop, work)
        except (CannotFetch, Stopped, Changed):
            raise
        except Exception as error:
            if no_space(error):
                job.full = True
                raise full_disk(job.at, self._home) from None
            raise explain(job.at, job.source.url, error, self._limits.objects_timeout_s) from None

    def _find(self, name: str) -> Kept | None:
        found = self._trees.find(_key(name))
        return None if found is None else Kept(path=found / "tree", pin=name, key=_key(name))


class _Job(Struct, kw_only=True):
    """One fetch of a prefix."""

    at: str
    source: ObjectSource
    stop: Stop
    say: Event
    files: int = 0
    size: int = 0
    received: int = 0
    came: list[str] = []
    """Keys of what was downloaded."""
    full: bool = False
    """The disk was found to be full."""
    _told: str = ""

    def begin(self, missing: Iterable[Entry]) -> None:
        """This is to be downloaded."""
        sizes = [entry.size for entry in missing]
        self.files, self.size, self.received, self.came = len(sizes), sum(sizes), 0, []

    def took(self, count: int) -> None:
        """So many bytes more."""
        self.received += count

    def progress(self, *, ended: bool) -> None:
        """Say how far it is, where that is news."""
        text = f"{len(self.came)} of {self.files} files, {amount(self.received)} of {amount(self.size)}"
        if text != self._told and not ended:
            self.say(f"{self.at}: {text}")
            self._told = text


def _list(store: Opened) -> tuple[Entry, ...]:
    """In a thread. A prefix that is not there is empty; a bucket that is not there is an error."""
    found = store.files.find(store.root, detail=True)
    return entries(store.files._strip_protocol(store.root), found)


def _link(blobs: Blobs, store: Opened, listed: Sequence[Entry], directory: Path, stop: Stop) -> int:
    """In a thread: the tree; bytes it takes beside the contents."""
    tree = directory / "tree"
    if listed[0].name:
        tree.mkdir(mode=0o755)
    copied = 0
    for entry in listed:
        stop.check()
        place = tree / entry.name if entry.name else tree
        if entry.directory:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            copied += blobs.place(blob_key(store, entry), place)
    return copied


def _key(name: str) -> str:
    return name.removeprefix("sha256:")
