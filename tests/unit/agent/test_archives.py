"""Unpacking uploaded code: what may come out of an archive, on any Python 3.11."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from easel_agent.archives import BadArchive, unpack


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    packed.seek(0)
    return packed


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def _file(name: str, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = mode, 4711, 4711
    return info, b"print(1)"


def test_files_and_links_come_out(tmp_path: Path) -> None:
    """A program keeps its execute bit, a link inside stays a link, set-uid and foreign owners do not survive."""
    unpack(_tar(_file("app/run.sh", 0o4777), _link("app/latest", "run.sh"), _file("./server.py")), tmp_path)

    assert (tmp_path / "server.py").read_bytes() == b"print(1)"
    assert os.readlink(tmp_path / "app" / "latest") == "run.sh"
    assert (tmp_path / "app" / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "server.py").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    "members",
    [
        [_file("../outside")],
        [_file("/outside")],
        [_link("way", "../.."), _file("way/outside")],
        [_link("way", "/etc")],
        [_link("hard", "../outside", tarfile.LNKTYPE)],
        [_link("device", "", tarfile.CHRTYPE)],
        [_link("pipe", "", tarfile.FIFOTYPE)],
    ],
    ids=["parent", "absolute", "through a link", "link out", "hard link out", "device", "pipe"],
)
def test_nothing_lands_outside(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Refused, and nothing of the archive is left."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)

    with pytest.raises(BadArchive):
        unpack(_tar(*members), inside)

    assert [path.name for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()] == []
    assert not Path("/outside").exists()
