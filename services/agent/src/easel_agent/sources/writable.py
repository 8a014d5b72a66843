"""What a replica has of its own: scratch directories, and copies of shared trees that it may write to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath


def empty_directory(path: Path) -> Path:
    """A directory any user may write to; one that is there already is kept with what is in it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    path.mkdir(exist_ok=True)
    path.chmod(0o777)
    return path


def own_copy(shared: Path, path: Path) -> Path:
    """A copy of a shared directory or file that any user may write to; one that is there already is kept."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    part = path.with_name(f".{path.name}.part")
    _remove(part)
    try:
        if shared.is_dir():
            shutil.copytree(shared, part, symlinks=True)
        else:
            shutil.copyfile(shared, part)
        _open_up(part)
        part.rename(path)
    except BaseException:
        _remove(part)
        raise
    return path


def inside(root: Path, relative: str) -> Path:
    """Where a path of a fetched tree really is. Raises ValueError where a link leads out of the tree.

    Whoever reads a fetched file on the node must use this: images may hold links such as `x -> /etc/shadow`.
    """
    real, top = os.path.realpath(root / str(PurePosixPath(relative)).lstrip("/")), os.path.realpath(root)
    if real != top and not real.startswith(top + os.sep):
        raise ValueError(f"{relative} is a link that leads out of its mount")
    return Path(real)


def _open_up(path: Path) -> None:
    if not path.is_dir():
        path.chmod(path.stat().st_mode | 0o666)
        return
    for parent, folders, files in os.walk(path):
        os.chmod(parent, 0o777)
        for name in (*folders, *files):
            entry = os.path.join(parent, name)
            if not os.path.islink(entry):
                os.chmod(entry, os.stat(entry).st_mode | 0o666)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
