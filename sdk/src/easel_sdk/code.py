"""Packing local code into an archive that depends on its content alone.

Decides what goes in (`.easelignore`, written like a .gitignore), the archive's limit, and that nothing outside the
directory is packed. The same files give the same bytes, so that the digest names the content.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from easel_sdk.errors import FieldError, InvalidInput

IGNORE_FILE = ".easelignore"
ALWAYS_IGNORED = (".git/", "__pycache__/", "*.pyc", ".venv/", ".ipynb_checkpoints/")
"""Left out unless .easelignore brings them back with `!`."""
MAX_ARCHIVE_MIB = 256
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """A packed directory; `file` is open for reading, at its start, and removed when closed."""

    digest: str
    """`sha256:<hex>` of the bytes."""
    size_bytes: int
    file: IO[bytes]


def pack(directory: Path, *, field: str = "", max_mib: int = MAX_ARCHIVE_MIB) -> Archive:
    """The directory as a gzip'd tar.

    Raises InvalidInput (naming `field`) where it cannot be packed: no directory, a link that leads out of it, a
    device or socket in it, or an archive above `max_mib`.
    """
    directory = directory.expanduser()
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist on this machine"
        raise _refused(field, "NOT_A_DIRECTORY", f"{directory} {what}", "name a directory; it is packed and uploaded")
    entries = list(_entries(directory, field))
    out = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    try:
        _write(directory, entries, out, field, max_mib)
    except BaseException:
        out.close()
        raise
    size = out.tell()
    out.seek(0)
    digest = hashlib.file_digest(out, "sha256").hexdigest()
    out.seek(0)
    return Archive(f"sha256:{digest}", size, out)


def _write(directory: Path, entries: list[str], out: IO[bytes], field: str, max_mib: int) -> None:
    """The archive's bytes; stops as soon as they pass the limit."""
    # mtime 0 and no file name: otherwise the gzip header differs from run to run
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in entries:
            path = directory / name
            info = _header(path, name)
            if info.isreg():
                with path.open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
            if out.tell() > max_mib * _MIB:
                raise _too_big(directory, entries, field, max_mib)
    if out.tell() > max_mib * _MIB:
        raise _too_big(directory, entries, field, max_mib)


def _header(path: Path, name: str) -> tarfile.TarInfo:
    """An entry's header without what depends on the machine: owner, times, umask, hard links."""
    found = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode = 0o755 if stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IXUSR else 0o644
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    else:
        info.size = found.st_size
    return info


def _entries(directory: Path, field: str) -> Iterator[str]:
    """Relative paths of what is packed, sorted."""
    import pathspec

    own = directory / IGNORE_FILE
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    ignored = pathspec.GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *lines])
    root = directory.resolve()
    for top, directories, files in os.walk(directory):
        relative = Path(top).relative_to(directory)
        directories[:] = sorted(d for d in directories if not ignored.match_file(f"{(relative / d).as_posix()}/"))
        links = [d for d in directories if (Path(top) / d).is_symlink()]
        directories[:] = [d for d in directories if d not in links]
        if relative != Path("."):
            yield relative.as_posix()
        for name in sorted([*files, *links]):
            entry = relative / name
            if not ignored.match_file(entry.as_posix()):
                _check(root, directory / entry, field)
                yield entry.as_posix()


def _check(root: Path, path: Path, field: str) -> None:
    if path.is_symlink():
        target = Path(os.readlink(path))
        if target.is_absolute() or not path.resolve().is_relative_to(root):
            raise _refused(field, "LINK_LEADS_OUT", f"{path} is a link to {target}, which is outside the directory",
                           f"copy the file in, or leave the link out with a line in {IGNORE_FILE}")  # fmt: skip
    elif not path.is_file():
        raise _refused(field, "NOT_A_FILE", f"{path} is neither a file nor a directory",
                       f"leave it out with a line in {IGNORE_FILE}")  # fmt: skip


def _too_big(directory: Path, entries: list[str], field: str, max_mib: int) -> InvalidInput:
    sizes = sorted(((os.lstat(directory / name).st_size, name) for name in entries), reverse=True)[:3]
    largest = ", ".join(f"{name} ({size / _MIB:.0f} MiB)" for size, name in sizes)
    return _refused(
        field, "TOO_BIG", f"{directory} packs to more than the {max_mib} MiB that are uploaded; largest: {largest}",
        f"leave files out with {IGNORE_FILE}, or put them where the platform's machine sees them",
    )  # fmt: skip


def _refused(field: str, code: str, message: str, hint: str) -> InvalidInput:
    error = FieldError(path=field, code=code, message=message, hint=hint)
    return InvalidInput("the code cannot be packed", (error,), code=code)
