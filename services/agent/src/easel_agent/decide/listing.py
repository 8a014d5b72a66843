"""Decides whether what lies below a prefix of an object store can be files of a directory, and what it is called.

Object stores have names, not directories: `a` and `a/b` may both be there, and so may `../x`. What cannot be a
directory exactly as listed is refused as a whole; nothing is left out silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from msgspec import Struct

NAME_BYTES, PATH_BYTES = 255, 3000
"""What file systems take, with room for the cache's own path."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "updated", "mtime",
            "created")  # fmt: skip
"""Where drivers say which content an object has, the best first."""


class Entry(Struct, frozen=True, kw_only=True, order=True):
    """One object."""

    name: str
    """Relative to the prefix; empty: the prefix names the object itself. A directory's ends with `/`."""
    size: int = 0
    version: str = ""
    """Changes with the content."""

    @property
    def directory(self) -> bool:
        """Is it an object that only stands for a directory?"""
        return self.name.endswith("/")


def entries(prefix: str, found: Mapping[str, Mapping[str, object]]) -> tuple[Entry, ...]:
    """What a driver's `find` says of `prefix` (without a slash at its end), in order."""
    listed = []
    for name, info in found.items():
        relative = name.removeprefix(prefix).removeprefix("/")
        if name.endswith("/") and not relative:
            if not _size(info):
                continue  # stands for the prefix itself
            relative = "/"
        if info.get("type", "file") != "file" and not relative.endswith("/"):
            relative += "/"
        listed.append(Entry(name=relative, size=_size(info), version=version(info)))
    return tuple(sorted(listed))


def refusal(listed: Iterable[Entry]) -> str | None:
    """Why this cannot be a directory (or a file); None when it can."""
    listed = list(listed)
    for entry in listed:
        if entry.directory and entry.size:
            return f"object {entry.name[:200]!r} ends with / like a directory, but has content"
    names = [entry.name for entry in listed]
    for name in names:
        why = _bad(name) if name else None
        if why:
            return f"object {name[:200]!r} {why}"
    files = {name for name in names if not name.endswith("/")}
    for name in names:
        parts = name.rstrip("/").split("/")
        above = [name.rstrip("/")] if name.endswith("/") else []
        above += ["/".join(parts[:count]) for count in range(1, len(parts))]
        for path in above:
            if path in files:
                return f"objects {path[:200]!r} and {name[:200]!r} cannot both be files of a directory"
    return "the prefix is an object and a directory too" if "" in names and len(names) > 1 else None


def digest(url: str, endpoint: str | None, listed: Iterable[Entry]) -> str:
    """Names what lies below a prefix: the same for the same names, sizes and versions."""
    found = hashlib.sha256(json.dumps([url, endpoint]).encode())
    for entry in sorted(listed):
        found.update(json.dumps([entry.name, entry.size, entry.version]).encode() + b"\n")
    return f"sha256:{found.hexdigest()}"


def version(info: Mapping[str, object]) -> str:
    """What a driver says of an object that changes with its content."""
    return next((str(info[key]).strip('"') for key in VERSIONS if info.get(key) not in (None, "")), "")


def _bad(name: str) -> str | None:
    parts = name.removesuffix("/").split("/")
    if parts[0] == "":
        return "begins with /, which would be an absolute path"
    if any(part in ("", ".", "..") for part in parts):
        return "has a part that is empty, `.` or `..`"
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return "is no text"
    if b"\0" in raw:
        return "holds a NUL character"
    if any(len(part) > NAME_BYTES for part in raw.split(b"/")) or len(raw) > PATH_BYTES:
        return f"is longer than a file's path may be ({NAME_BYTES} bytes a part, {PATH_BYTES} in all)"
    return None


def _size(info: Mapping[str, object]) -> int:
    size = info.get("size")
    return size if isinstance(size, int) else 0
