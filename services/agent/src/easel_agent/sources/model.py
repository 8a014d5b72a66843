"""What the parts of this package hand each other, and the ports they need. No I/O."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from easel_contracts.runtime import FailureCause

Event = Callable[[str], None]
"""Takes one line for the replica's log. Only called in the event loop's thread."""


class Login(Protocol):
    """For a git repository. `easel_agent.runtime.Login` is one."""

    @property
    def username(self) -> str: ...

    @property
    def password(self) -> str: ...


class ImageFiles(Protocol):
    """Copies files out of images (the Docker runtime)."""

    async def files(self, reference: str, path: str, into: Path) -> str:
        """Copy `path` of an image to `into`, which does not exist yet and is a directory or a file afterwards.

        `reference` is `repository:tag`, `repository@sha256:…`, or the id of an image of the node's own (`sha256:…`);
        the image is pulled where it must be. Nothing of it runs. Answers with the image's pin (`sha256:…` or
        `local:sha256:…`). May be cancelled. Raises CannotFetch, with a message that need not name the mount.
        """


class Fetched(Struct, frozen=True, kw_only=True):
    """What the mounts of a revision are made of on this node."""

    paths: dict[str, Path] = {}
    """mount_path → a directory or file. Mounts that are not fetched (a path of the node, uploaded code, NFS, scratch
    memory) are not in it. What is read-only may be shared with other replicas and must never be mounted writable; what
    is not lies below the replica's own directory and may be written to by any user."""
    pins: dict[str, str] = {}
    """See RunSpec.pins."""
    held: tuple[str, ...] = ()
    """Keys of what is in use, for Sources.prune."""


class Kept(Struct, frozen=True, kw_only=True):
    """One source, in a cache of the node."""

    path: Path
    pin: str
    key: str
    """As in Fetched.held."""


class SourceLimits(Struct, frozen=True, kw_only=True):
    """See AgentSettings for the meanings."""

    git_timeout_s: float = 600.0
    git_max_mib: int = 4096
    git_trees_kept: int = 20
    image_trees_kept: int = 20
    objects_timeout_s: float = 7200.0
    objects_parallel: int = 8
    objects_cache_mib: int = 51200
    progress_every_s: float = 2.0
    spare_s: float = 600.0
    """What was used so lately is not pruned: whoever fetched it may not have told yet that it is in use."""


class CannotFetch(Exception):
    """A source cannot be had on this node as it is; the text is for people and holds no secret."""

    def __init__(self, message: str, *, cause: FailureCause = "mount", temporary: bool = False) -> None:
        super().__init__(message)
        self.message, self.cause = message, cause
        self.temporary = temporary
        """The network or a server's trouble: worth another try as it is."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made from, the outermost first."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        below = found.__cause__ or found.__context__
        reason = getattr(found, "reason", None)  # urllib3 keeps what happened below a retry there
        found = reason if isinstance(reason, BaseException) else below


def no_space(error: BaseException) -> bool:
    """Is it that the node's disk (or a quota of it) is full?"""
    full = (errno.ENOSPC, errno.EDQUOT)
    return any(isinstance(found, OSError) and found.errno in full for found in chain(error))


def full_disk(at: str, home: Path) -> CannotFetch:
    """The refusal for a full disk."""
    return CannotFetch(f"{at}: no space is left on the node below {home}. Free some, or have less fetched: a smaller "
                       "repository or prefix, or another node.")  # fmt: skip


def amount(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
