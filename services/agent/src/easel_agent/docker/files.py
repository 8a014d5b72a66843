"""Copies files out of an image: from a container that is made for it and never started."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from easel_agent.docker.engine import Engine, EngineError
from easel_agent.docker.images import Images, Login
from easel_agent.runtime import CannotPrepare
from easel_agent.sources import CannotFetch
from easel_contracts.spec import Image


class FilesOfImages:
    """See sources.ImageFiles; for one replica, with its login."""

    def __init__(self, engine: Engine, images: Images, login: Login, labels: Mapping[str, str],
                 event: Callable[[str], None]) -> None:  # fmt: skip
        self._engine, self._images, self._login = engine, images, login
        self._labels, self._event = {**labels, "easel.build": "files"}, event

    async def files(self, reference: str, path: str, into: Path) -> str:
        """See ImageFiles. Raises CannotFetch or EngineAway."""
        try:
            found = await self._images.get(Image(reference=reference), None, self._login, self._event)
        except CannotPrepare as error:
            raise CannotFetch(error.refusal.message, cause=error.refusal.cause) from error
        body = {"Image": found.id, "Entrypoint": ["none"], "Cmd": [], "Labels": self._labels}
        try:
            container = (await self._engine.ask("POST", "containers/create", data=body))["Id"]
            try:
                await self._copy(container, path, reference, into)
            finally:
                await self._engine.ask("DELETE", f"containers/{container}", params={"force": "1", "v": "1"})
        except EngineError as error:
            raise CannotFetch(f"the files of {reference} cannot be had: {error.message}") from error
        return found.pin

    async def _copy(self, container: str, path: str, reference: str, into: Path) -> None:
        with tempfile.TemporaryFile(dir=into.parent) as stream:
            for inside in (f"{path.rstrip('/')}/.", path):  # a directory's content, else a file
                stream.seek(0)
                stream.truncate()
                try:
                    await self._download(container, inside, stream)
                except EngineError as error:
                    if error.status not in (400, 404, 500):
                        raise
                    continue
                stream.seek(0)
                await asyncio.to_thread(unpack, stream, into, whole=inside != path)
                return
        raise CannotFetch(f"the image {reference} has no {path}")

    async def _download(self, container: str, inside: str, stream: BinaryIO) -> None:
        pieces = self._engine.pieces(f"containers/{container}/archive", params={"path": inside})
        async with aclosing(pieces) as found:
            async for piece in found:
                await asyncio.to_thread(stream.write, piece)


def unpack(stream: BinaryIO, into: Path, *, whole: bool) -> None:
    """Files, directories and links of an archive; links are made as they are and never written through.

    Absolute links mean the replica's own root, so they are kept. Devices and pipes are left out. `whole`: the
    archive is a directory's content; else it is one file.
    """
    if not whole:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            member = next(member for member in archive if member.isfile())
            source = archive.extractfile(member)
            assert source is not None
            with into.open("wb") as target:
                shutil.copyfileobj(source, target)
        into.chmod(member.mode & 0o777)
        return
    into.mkdir()
    _unpack(stream, into)


def _unpack(stream: BinaryIO, directory: Path) -> None:
    root = os.path.realpath(directory)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        archive.extraction_filter = lambda member, _path: member
        for member in archive:
            place = os.path.normpath(os.path.join(root, member.name))
            parent = os.path.realpath(os.path.dirname(place))
            outside = place != root and os.path.commonpath([root, parent]) != root
            if outside or not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
                continue
            linked = os.path.realpath(os.path.join(root, member.linkname)) if member.islnk() else root
            if os.path.commonpath([root, linked]) != root:
                continue
            if place != root and os.path.islink(place):
                os.unlink(place)
            archive.extract(member, root, numeric_owner=True)
    os.chmod(root, 0o755)
