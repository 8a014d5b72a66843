"""Speaks git's HTTP protocol through dulwich: what a repository's branches name, and the objects of one commit.

Everything here blocks and runs in a thread. Reading is guarded: between two pieces it asks whether to go on, it counts
bytes, and it goes to no other machine than the repository's own (or the one that its server redirects to).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import urllib3
from dulwich.client import HttpGitClient, default_urllib3_manager
from dulwich.errors import GitProtocolError
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.repo import Repo

from easel_agent.sources.model import Login
from easel_agent.sources.threads import Stop

ANSWER_S = 30.0
"""Longest wait for a connection, or for the next bytes on it."""
PEELED = b"^{}"
"""Ending of the reference that tells which commit a tag stands for."""


class NoSuchBranch(Exception):
    """The repository has no branch or tag of that name, or no commit at all."""


class NoSuchCommit(Exception):
    """The repository does not have the commit, or not in what was asked for."""


class AmbiguousCommit(Exception):
    """Several commits begin like that."""


class NotARepository(Exception):
    """Something answers there, but not git."""


class TooLarge(Exception):
    """More bytes than a repository may have."""


class Remote:
    """One repository on an HTTP server."""

    def __init__(self, url: str, login: Login | None, stop: Stop, max_bytes: int) -> None:
        manager = default_urllib3_manager(None, base_url=url, timeout=ANSWER_S)
        self._guard = _Guard(cast("urllib3.PoolManager", manager), url, stop, max_bytes)
        self._stop = stop
        self._client = HttpGitClient(
            url, pool_manager=cast("urllib3.PoolManager", self._guard),
            username=login.username if login else None, password=login.password if login else None,
        )  # fmt: skip

    def tip(self, branch: str | None) -> str:
        """The commit a branch or tag names now; None is the repository's default branch. Raises NoSuchBranch."""
        refs = cast("Mapping[bytes, bytes | None]", self._client.get_refs("").refs)
        names = [f"refs/heads/{branch}", f"refs/tags/{branch}"] if branch else ["HEAD"]
        for name in names:
            found = refs.get(name.encode() + PEELED) or refs.get(name.encode())
            if found:
                return found.decode()
        raise NoSuchBranch

    def whole(self, beginning: str, branch: str | None, directory: Path) -> str:
        """The commit whose id begins so, in the branch or in any. Raises NoSuchCommit or AmbiguousCommit."""
        repo = Repo.init_bare(str(directory / "commits"), mkdir=True)
        try:
            # Only commits, where the server can leave out the rest.
            self._fetch(repo, lambda refs: _tips(refs, branch), depth=None, leave_out=b"tree:0")
            store = repo.object_store
            found = [sha for sha in store.iter_prefix(beginning.encode()) if isinstance(store[sha], Commit)]
        finally:
            repo.close()
        if len(found) > 1:
            raise AmbiguousCommit
        if not found:
            raise NoSuchCommit
        return found[0].decode()

    def fetch(self, commit: str, branch: str | None, directory: Path) -> Repo:
        """A bare repository with (at least) the files of a commit. Raises NoSuchCommit.

        Asked for alone where the server allows that; else with all of the branch, or of every branch.
        """
        wanted = ObjectID(commit.encode())
        repo = Repo.init_bare(str(directory / "shallow"), mkdir=True)
        try:
            self._fetch(repo, lambda refs: [wanted], depth=1)
            if wanted in repo.object_store:
                return repo
        except GitProtocolError as error:
            if _network(error):
                raise
        repo.close()
        repo = Repo.init_bare(str(directory / "full"), mkdir=True)
        self._fetch(repo, lambda refs: _tips(refs, branch), depth=None)
        if wanted not in repo.object_store:
            repo.close()
            raise NoSuchCommit
        return repo

    def _fetch(self, repo: Repo, wants: Callable[[Mapping[bytes, bytes]], list[ObjectID]], depth: int | None,
               leave_out: bytes | None = None) -> None:  # fmt: skip
        def determine(refs: Mapping[Any, Any], depth: int | None = None) -> list[ObjectID]:
            return wants(refs)

        self._client.fetch("", repo, determine, depth=depth, filter_spec=leave_out,
                           progress=lambda _: self._stop.check())  # fmt: skip


def root_tree(repo: Repo, commit: str) -> ObjectID:
    """The tree of a commit. Raises NoSuchCommit where it is something else."""
    found = repo.object_store[ObjectID(commit.encode())]
    for _ in range(8):
        if not isinstance(found, Tag):
            break
        found = repo.object_store[found.object[1]]
    if not isinstance(found, Commit):
        raise NoSuchCommit
    return ObjectID(found.tree)


def _tips(refs: Mapping[bytes, bytes], branch: str | None) -> list[ObjectID]:
    names = [f"refs/heads/{branch}".encode(), f"refs/tags/{branch}".encode()] if branch else list(refs)
    kinds = (b"HEAD", b"refs/heads/", b"refs/tags/")
    return sorted({ObjectID(refs[name]) for name in names
                   if name in refs and name.startswith(kinds) and not name.endswith(PEELED)})  # fmt: skip


def _network(error: GitProtocolError) -> bool:
    return isinstance(error.__cause__, urllib3.exceptions.HTTPError)


class _Guard:
    """A pool of connections as dulwich uses it."""

    def __init__(self, manager: urllib3.PoolManager, url: str, stop: Stop, max_bytes: int) -> None:
        self._manager, self._stop = manager, stop
        self._origins = {_origin(url)}
        self._first = True
        self.bytes_left = max_bytes
        self.headers = manager.headers

    def request(self, method: str, url: str, **arguments: Any) -> _Answer:
        self._stop.check()
        if _origin(url) not in self._origins:
            raise NotARepository
        answer = self._manager.request(method, url, **arguments)
        if self._first and answer.status == 200:
            if not answer.headers.get("Content-Type", "").startswith("application/x-git-"):
                answer.close()
                raise NotARepository
            self._origins.add(_origin(answer.geturl() or url))
            self._first = False
        return _Answer(answer, self)

    def took(self, data: bytes) -> bytes:
        self._stop.check()
        self.bytes_left -= len(data)
        if self.bytes_left < 0:
            raise TooLarge
        return data


class _Answer:
    """An answer whose reading is counted. dulwich sets the last two."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, guard: _Guard) -> None:
        self._answer, self._guard = answer, guard
        self.status, self.headers = answer.status, answer.headers
        self.content_type: str | None = None
        self.redirect_location: str | None = None

    def read(self, count: int | None = None) -> bytes:
        return self._guard.took(self._answer.read(count))

    def geturl(self) -> str | None:
        return self._answer.geturl()

    def close(self) -> None:
        self._answer.close()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
