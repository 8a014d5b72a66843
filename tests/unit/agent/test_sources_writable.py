"""Reading fetched files on the node, and copies for replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_agent.sources import inside
from easel_agent.sources.writable import own_copy


def test_links_that_stay_inside_are_followed(tmp_path: Path) -> None:
    """Absolute or not, the path is one of the tree."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_text("1")
    (tmp_path / "link").symlink_to("d/file")

    assert inside(tmp_path, "link").read_text() == "1"
    assert inside(tmp_path, "/d/file").read_text() == "1"


@pytest.mark.parametrize("path", ["out", "way/passwd", "../x", "d/../../x"])
def test_what_leads_out_is_not_read(tmp_path: Path, path: str) -> None:
    """Neither by a link nor by `..`."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to("/etc/passwd")
    (root / "way").symlink_to("/etc")

    with pytest.raises(ValueError, match="leads out"):
        inside(root, path)


def test_a_copy_keeps_links_and_does_not_follow_them(tmp_path: Path) -> None:
    """Rights are opened for what was copied, never for what a link leads to; half a copy of a crash is no copy."""
    shared, target = tmp_path / "shared", tmp_path / "target"
    shared.mkdir()
    target.write_text("untouched")
    target.chmod(0o600)
    (shared / "out").symlink_to(target)
    (shared / "file").write_text("1")
    half = tmp_path / "own" / ".copy.part"
    half.mkdir(parents=True)
    (half / "left").touch()

    copy = own_copy(shared, tmp_path / "own" / "copy")

    assert sorted(path.name for path in copy.iterdir()) == ["file", "out"]
    assert (copy / "out").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert (copy / "file").stat().st_mode & 0o666 == 0o666
