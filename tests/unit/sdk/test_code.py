"""Packing code: the same content gives the same bytes, and nothing but the content counts."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest

from easel_sdk.code import pack
from easel_sdk.errors import InvalidInput


def make(root: Path, files: dict[str, str]) -> Path:
    """A directory with these files."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def names(directory: Path) -> list[str]:
    """What an archive of it holds."""
    archive = pack(directory)
    with archive.file, tarfile.open(fileobj=archive.file) as tar:
        return tar.getnames()


def digest(directory: Path) -> str:
    """Digest of its archive."""
    archive = pack(directory)
    archive.file.close()
    return archive.digest


def test_same_content_same_digest(tmp_path: Path) -> None:
    """Whatever the times, the umask, the order of making, or hard links."""
    one = make(tmp_path / "one", {"b/c.py": "x", "a.py": "y"})
    two = make(tmp_path / "two", {"a.py": "y", "b/c.py": "x"})
    os.utime(two / "a.py", (1, 1))
    (two / "a.py").chmod(0o600)
    linked = make(tmp_path / "three", {"a.py": "y", "b/x": ""})
    (linked / "b" / "x").unlink()
    (tmp_path / "x").write_text("x")
    os.link(tmp_path / "x", linked / "b" / "c.py")

    assert digest(one) == digest(two) == digest(linked)


def test_content_names_and_the_executable_bit_count(tmp_path: Path) -> None:
    """Each of them changes the digest."""
    plain = digest(make(tmp_path / "one", {"a.py": "y"}))
    other = digest(make(tmp_path / "two", {"a.py": "z"}))
    named = digest(make(tmp_path / "three", {"b.py": "y"}))
    make(tmp_path / "four", {"a.py": "y"})
    (tmp_path / "four" / "a.py").chmod(0o755)

    assert len({plain, other, named, digest(tmp_path / "four")}) == 4


def test_ignored_files_stay_out(tmp_path: Path) -> None:
    """Version control and caches always; what .easelignore says; and `!` brings back."""
    make(tmp_path, {".git/x": "", "__pycache__/a.pyc": "", "data/big": "", "data/keep": "", "a.py": "", "b.log": "",
                    ".easelignore": "*.log\ndata/*\n!data/keep\n"})  # fmt: skip

    assert names(tmp_path) == [".easelignore", "a.py", "data", "data/keep"]


def test_links_inside_are_kept_and_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    """A link to elsewhere would be another file on another machine."""
    root = make(tmp_path / "root", {"a.py": "1", "d/e.py": "2"})
    (root / "in").symlink_to("a.py")
    (root / "dir").symlink_to("d")

    assert names(root) == ["a.py", "dir", "in", "d", "d/e.py"]

    (root / "out").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput) as found:
        pack(root, field="storage[0].local.path")

    assert found.value.fields[0].path == "storage[0].local.path"
    assert "outside the directory" in found.value.fields[0].message


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket cannot be packed."""
    with socket.socket(socket.AF_UNIX) as door:
        monkeypatch.chdir(tmp_path)  # a short name: a socket's path may not be long
        door.bind("s")
        with pytest.raises(InvalidInput, match="cannot be packed"):
            pack(tmp_path)


def test_too_big_names_the_largest_files(tmp_path: Path) -> None:
    """Refused before all of it is written, with what could be left out."""
    (tmp_path / "weights.bin").write_bytes(os.urandom(3 * 1024 * 1024))
    (tmp_path / "a.py").write_text("x")

    with pytest.raises(InvalidInput) as found:
        pack(tmp_path, max_mib=1)

    assert "more than the 1 MiB" in found.value.fields[0].message
    assert "weights.bin (3 MiB)" in found.value.fields[0].message


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """Said as it is."""
    (tmp_path / "a").write_text("")

    with pytest.raises(InvalidInput) as found:
        pack(tmp_path / "a")

    assert "is not a directory" in found.value.fields[0].message
