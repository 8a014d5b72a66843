"""Keeps uploaded code of services, unpacked once per digest and shared read-only by replicas."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable, Container
from pathlib import Path
from typing import BinaryIO

from easel_agent.cache import DirectoryCache

FetchCode = Callable[[str], AsyncIterator[bytes]]
"""Digest → pieces of the archive, from control."""


class BadArchive(Exception):
    """The code cannot be used; the text says why."""


class CodeStore:
    """Directories of unpacked archives, named by digest."""

    def __init__(self, home: Path, fetch: FetchCode, keep: int) -> None:
        self._cache = DirectoryCache(home, keep)
        self._fetch = fetch

    async def get(self, digest: str) -> Path:
        """The directory with the archive's content. Raises BadArchive, or what the transport raises."""
        if not digest.startswith("sha256:") or not digest[7:].isalnum():
            raise BadArchive(f"{digest!r} is not a digest")

        async def make(directory: Path) -> None:
            with (directory.parent / f".{directory.name}.part").open("w+b") as stream:
                os.unlink(stream.name)
                await self._download(digest, stream)
                await asyncio.to_thread(unpack, stream, directory)

        return await self._cache.get(digest[7:], make)

    def prune(self, used: Container[str]) -> None:
        """Remove what was used least lately, beyond the cap."""
        self._cache.prune(used)

    async def _download(self, digest: str, stream: BinaryIO) -> None:
        found = hashlib.sha256()
        async for data in self._fetch(digest):
            found.update(data)
            stream.write(data)
        if found.hexdigest() != digest[7:]:
            raise BadArchive(f"the archive's content is sha256:{found.hexdigest()}, expected {digest}")
        stream.seek(0)


def unpack(stream: BinaryIO, directory: Path) -> None:
    """Unpack a tar (plain or compressed) or zip archive. Members that would land outside raise BadArchive."""
    try:
        if zipfile.is_zipfile(stream):
            stream.seek(0)
            _unzip(stream, directory)
        else:
            stream.seek(0)
            _untar(stream, directory)
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise BadArchive(f"the archive cannot be unpacked: {error}") from error
    except BadArchive:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    for parent, folders, files in os.walk(directory):
        for name in folders:
            os.chmod(os.path.join(parent, name), 0o755)
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o444)


def _untar(stream: BinaryIO, directory: Path) -> None:
    """Member by member, each checked against what lies there by then; owners in the archive mean nothing here."""
    root = os.path.realpath(directory)
    with tarfile.open(fileobj=stream) as archive:
        # Python before 3.11.4 has no such filter (Debian 12's does not): ours comes first in any case.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in archive:
            _check(member, root)
            member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
            member.mode = 0o755 if member.isdir() else (member.mode & 0o755) | 0o600
            archive.extract(member, root)


def _check(member: tarfile.TarInfo, root: str) -> None:
    """Refuses what would land, or lead, outside, and what is neither file, directory nor link."""
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise BadArchive(f"the archive holds {member.name}, which is neither a file nor a directory nor a link")
    places = [os.path.join(root, member.name)]
    if member.issym():
        places.append(os.path.join(os.path.dirname(places[0]), member.linkname))
    elif member.islnk():
        places.append(os.path.join(root, member.linkname))
    for place in places:
        if os.path.commonpath([root, os.path.realpath(place)]) != root:
            raise BadArchive(f"the archive's {member.name} leads outside of its directory")


def _unzip(stream: BinaryIO, directory: Path) -> None:
    with zipfile.ZipFile(stream) as archive:
        archive.extractall(directory)  # strips what would lead outside
        for member in archive.infolist():
            mode = member.external_attr >> 16 & 0o777
            target = directory / member.filename
            if mode and target.is_file():
                target.chmod(mode)
