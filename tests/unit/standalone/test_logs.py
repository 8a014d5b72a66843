"""Logs are capped, and keep their newest lines."""

from __future__ import annotations

from pathlib import Path

from easel_standalone.logs import LogFile


def test_rotation_caps_the_disk(tmp_path: Path) -> None:
    """However much is written, the files together stay near (kept + 1) × the cap."""
    log = LogFile(tmp_path / "x.log", max_bytes=1000, kept=2)
    for number in range(500):
        log.write(f"line {number:04d}\n".encode())

    files = sorted(path.name for path in tmp_path.iterdir())

    assert files == ["x.log", "x.log.1", "x.log.2"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * 1000
    assert (tmp_path / "x.log").read_text().endswith("line 0499\n")


def test_last_lines_survive_chunks(tmp_path: Path) -> None:
    """A line split between chunks is one line; an unfinished one is shown too."""
    log = LogFile(tmp_path / "x.log")
    for chunk in (b"on", b"e\ntw", b"o\nthree"):
        log.write(chunk)

    assert log.last_lines() == ["one", "two", "three"]


def test_disk_that_refuses_loses_lines_and_says_how_many(tmp_path: Path) -> None:
    """Writing must go on: a process must never block on its own output."""
    log = LogFile(tmp_path / "missing" / "x.log")
    log.write(b"hello\n")

    assert log.lost_bytes == 6
    assert log.last_lines() == ["hello"]
