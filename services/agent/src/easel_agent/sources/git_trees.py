"""Trees of git commits, without `.git`, kept on the node by repository and commit and shared read-only."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import time
from collections.abc import Callable, Container
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from re import fullmatch
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from easel_agent.cache import DirectoryCache
from easel_agent.sources.checkout import Written, write_tree
from easel_agent.sources.git_client import Remote, root_tree
from easel_agent.sources.git_errors import explain
from easel_agent.sources.model import CannotFetch, Event, Kept, Login, SourceLimits, amount, full_disk, no_space
from easel_agent.sources.sharing import Flights
from easel_agent.sources.threads import Stop, Stopped, T, in_thread
from easel_contracts.spec import GitSource

SECRET_BYTES = 32
WHOLE = (40, 64)
"""Digits of a commit's id."""
LOOKING = ".looking-"
"""Begins the name of a directory for the commits among which one is looked for."""


class GitTrees:
    """Directories `home/<key>/tree`. All methods are for the event loop's thread."""

    def __init__(self, home: Path, limits: SourceLimits, pool: Executor) -> None:
        self._cache = DirectoryCache(home, limits.git_trees_kept)
        self._home, self._limits, self._pool = home, limits, pool
        self._flights: Flights[Kept] = Flights()
        self._secret = _node_secret(home / ".key")
        for left in home.glob(f"{LOOKING}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def get(self, at: str, source: GitSource, pin: str | None, login: Login | None, event: Event) -> Kept:
        """The tree of the pinned commit, of the one given, or else of the branch's tip now. Raises CannotFetch."""
        _check(at, source)
        commit = pin or source.commit or ""
        if len(commit) not in WHOLE:
            commit = await self._whole(at, source, login)
        key = self._key(source.repo, commit, login)
        found = self._cache.find(key)
        if found is not None:
            return Kept(path=found / "tree", pin=commit, key=key)
        return await self._flights.share(key, event, partial(self._fill, at, source, commit, login, key))

    def prune(self, held: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap, but nothing that is held."""
        self._cache.prune(held)

    async def _whole(self, at: str, source: GitSource, login: Login | None) -> str:
        """The commit that a branch, or the beginning of a commit's id, names now."""
        stop = self._stop()

        def find() -> str:
            remote = self._remote(source, login, stop)
            if not source.commit:
                return remote.tip(source.branch)
            with TemporaryDirectory(dir=self._home, prefix=LOOKING) as directory:
                return remote.whole(source.commit, source.branch, Path(directory))

        return await self._blocking(at, source, login, stop, find)

    async def _fill(self, at: str, source: GitSource, commit: str, login: Login | None, key: str, say: Event) -> Kept:
        async def make(directory: Path) -> None:
            begun, stop = time.monotonic(), self._stop()
            say(f"{at}: fetching {source.repo} at {commit[:12]}")
            clone = partial(self._clone, source, commit, login, directory, stop)
            written = await self._blocking(at, source, login, stop, clone)
            say(f"{at}: {written.files} files, {amount(written.size)} in {time.monotonic() - begun:.1f} s")
            for text in _remarks(written):
                say(f"{at}: {text}")

        directory = await self._cache.fill(key, make)
        return Kept(path=directory / "tree", pin=commit, key=key)

    def _clone(self, source: GitSource, commit: str, login: Login | None, directory: Path, stop: Stop) -> Written:
        """In a thread. The repository itself lies beside the tree, and is gone when the tree is there."""
        objects, tree = directory / "objects", directory / "tree"
        objects.mkdir(mode=0o700)
        tree.mkdir(mode=0o755)
        repo = self._remote(source, login, stop).fetch(commit, source.branch, objects)
        try:
            root = root_tree(repo, commit)
            written = write_tree(repo.object_store, root, tree, stop, self._limits.git_max_mib << 20)
        finally:
            repo.close()
        shutil.rmtree(objects)
        return written

    async def _blocking(self, at: str, source: GitSource, login: Login | None, stop: Stop, work: Callable[[], T]) -> T:
        try:
            return await in_thread(self._pool, stop, work)
        except (CannotFetch, Stopped):
            raise
        except Exception as error:
            if no_space(error):
                raise full_disk(at, self._home) from None
            raise explain(at, source, error, login=login is not None, timeout_s=self._limits.git_timeout_s,
                          max_mib=self._limits.git_max_mib) from None  # fmt: skip

    def _remote(self, source: GitSource, login: Login | None, stop: Stop) -> Remote:
        return Remote(source.repo, login, stop, self._limits.git_max_mib << 20)

    def _stop(self) -> Stop:
        return Stop(self._limits.git_timeout_s)

    def _key(self, repo: str, commit: str, login: Login | None) -> str:
        """Also by login: who cannot read a repository does not get its files because somebody else could."""
        who = f"{login.username}\0{login.password}" if login else ""
        signed = hmac.new(self._secret, f"{repo}\0{commit}\0{who}".encode(), hashlib.sha256)
        return signed.hexdigest()[:40]


def _check(at: str, source: GitSource) -> None:
    parts = urlsplit(source.repo)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotFetch(f"{at}: git.repo must begin with https:// or http://, as in https://host/team/code.git; "
                          "ssh is not supported.")  # fmt: skip
    if parts.username is not None or parts.password is not None:
        raise CannotFetch(f"{at}: git.repo must not hold a login. Give git.username and git.password.")
    if source.commit is not None and not fullmatch(r"[0-9a-f]{7,64}", source.commit):
        raise CannotFetch(f"{at}: git.commit must be the id of a commit, or at least 7 digits of its beginning.")


def _remarks(written: Written) -> list[str]:
    found = []
    if written.submodules:
        found.append(f"{written.submodules} submodules are not fetched: their directories are empty")
    if written.large_files:
        found.append("files kept by git-lfs are not fetched: the tree holds pointers in their place")
    if written.links_left_out:
        found.append(f"{written.links_left_out} links that lead out of the tree are left out")
    return found


def _node_secret(path: Path) -> bytes:
    if path.exists() and len(found := path.read_bytes()) == SECRET_BYTES:
        return found
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(made := secrets.token_bytes(SECRET_BYTES))
    return made
