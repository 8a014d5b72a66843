"""Brings a replica's files to the node, for every runtime: uploaded code, and what `sources/` fetches."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from posixpath import join, normpath

from msgspec import Struct
from msgspec.structs import replace

from easel_agent.archives import BadArchive, CodeStore
from easel_agent.decide.layout import within
from easel_agent.model import Refusal
from easel_agent.runtime import CannotPrepare, Login
from easel_agent.sources import CannotFetch, ImageFiles, Sources, inside
from easel_contracts.errors import EaselError, Unavailable
from easel_contracts.spec import Mount, RunSpec

Event = Callable[[str], None]


class Files(Struct, frozen=True, kw_only=True):
    """Where a replica's mounts are on the node."""

    paths: dict[str, Path]
    """mount_path → directory or file. Mounts that a runtime makes itself are not among them."""
    archives: tuple[str, ...]
    held: tuple[str, ...]
    pins: dict[str, str]


class Fetching:
    """One for the agent."""

    def __init__(self, node_id: str, code: CodeStore, sources: Sources) -> None:
        self._node_id, self._code, self._sources = node_id, code, sources

    async def fetch(self, run: RunSpec, directory: Path, logins: Mapping[int, Login], event: Event,
                    images: ImageFiles | None, *, uid: int | None = None) -> Files:  # fmt: skip
        """Everything. Code that may be written to is copied below `directory`, for the user `uid`: the archive is
        shared.

        Raises CannotPrepare, or Unavailable.
        """
        self._check(run)
        code = await self._archives(run)
        try:
            found = await self._sources.fetch(run, directory, logins, event, images)
        except CannotFetch as error:
            if error.temporary:
                raise Unavailable("SOURCE_AWAY", error.message.rstrip(".")) from error
            raise CannotPrepare(Refusal(cause=error.cause, message=error.message)) from error
        paths = {mount.mount_path: Path(mount.host_path) for mount in run.revision.mounts if mount.host_path}
        for number, mount in enumerate(run.revision.mounts):
            if mount.code_digest:
                own = None if mount.read_only else directory / f"code-{number}"
                paths[mount.mount_path] = await asyncio.to_thread(_copied, code[mount.code_digest], own, uid)
        archives = tuple(path.name for path in code.values())
        return Files(paths=paths | found.paths, archives=archives, held=found.held, pins=found.pins)

    def _check(self, run: RunSpec) -> None:
        for mount in run.revision.mounts:
            if mount.host_path is not None and not os.path.exists(mount.host_path):
                message = f"{mount.host_path} (for {mount.mount_path}) does not exist on node {self._node_id}."
                raise CannotPrepare(Refusal(cause="mount", message=message))

    async def _archives(self, run: RunSpec) -> dict[str, Path]:
        """Digest → directory."""
        digests = sorted({mount.code_digest for mount in run.revision.mounts if mount.code_digest})
        try:
            return {digest: await self._code.get(digest) for digest in digests}
        except BadArchive as error:
            raise CannotPrepare(Refusal(cause="code", message=f"The code cannot be used: {error}.")) from error
        except Unavailable:
            raise
        except EaselError as error:
            raise CannotPrepare(Refusal(cause="code", message=f"The code cannot be fetched: {error}.")) from error


def _copied(source: Path, copy: Path | None, uid: int | None) -> Path:
    if copy is None:
        return source
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy, symlinks=True)
    if uid is not None:
        for parent, folders, files in os.walk(copy):
            for name in (".", *folders, *files):
                os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)
    return copy


def resolved(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """The mounts with the real paths of the node: what a link leads to is what would be mounted."""
    return tuple(
        replace(mount, host_path=os.path.realpath(mount.host_path)) if mount.host_path else mount for mount in mounts
    )


def in_the_image(run: RunSpec) -> str | None:
    """Path of a requirements file that lies in no mount, and so in the image where there is one."""
    path = run.revision.python_requirements_path
    if path is None or run.revision.image is None:
        return None
    mounted = any(within(normpath(path), normpath(mount.mount_path)) for mount in run.revision.mounts)
    return None if mounted else normpath(path)


def requirements(run: RunSpec, paths: Mapping[str, Path]) -> str:
    """The lines of the replica's Python requirements, empty for none. Raises CannotPrepare."""
    revision = run.revision
    lines = list(revision.python_requirements)
    if revision.python_requirements_path and in_the_image(run) is None:
        lines.append(_requirements_file(run, paths))
    return "\n".join(lines) + "\n" if lines else ""


def first_directory(run: RunSpec, paths: Mapping[str, Path]) -> str | None:
    """Where the first mounted directory is seen: processes start in it."""
    seen = (mount.mount_path for mount in run.revision.mounts if mount.mount_path in paths)
    return next((normpath(path) for path in seen if paths[path].is_dir()), None)


def _requirements_file(run: RunSpec, paths: Mapping[str, Path]) -> str:
    """The text of the file, which is named by its path as the replica sees it."""
    wanted = normpath(join(first_directory(run, paths) or "/", run.revision.python_requirements_path or ""))
    root = next((root for root in map(normpath, paths) if within(wanted, root)), None)
    if root is None:
        message = f"prepare.pythonRequirementsPath: {wanted} lies in none of the mounts."
        raise CannotPrepare(Refusal(cause="requirements", message=message))
    source = next(path for mount_path, path in paths.items() if normpath(mount_path) == root)
    try:
        rest = wanted[len(root) :].lstrip("/")
        return (inside(source, rest) if rest else source).read_text(encoding="utf-8")
    except ValueError as error:  # also UnicodeDecodeError
        reason = "not a text file" if isinstance(error, UnicodeDecodeError) else "a link leads out of its mount"
        message = f"prepare.pythonRequirementsPath: {wanted} cannot be read ({reason})."
        raise CannotPrepare(Refusal(cause="requirements", message=message)) from error
    except OSError as error:
        message = f"prepare.pythonRequirementsPath: {wanted} cannot be read ({error.strerror})."
        raise CannotPrepare(Refusal(cause="requirements", message=message)) from error
