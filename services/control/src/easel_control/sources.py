"""What the sources of a revision contain now: tree hashes of local paths, uploaded archives, lists of requirements.

Reads files; never writes one. What can change under a running revision is called `mutable`; so is, at first, what only
its replicas can find out (decide/pins.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path

from easel_contracts.errors import FieldError
from easel_contracts.spec import Mount, RevisionSpec, SourceDigest
from easel_control.decide.pins import MUTABLE, image_sources, mount_source

MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 10_000
SKIPPED = frozenset(("__pycache__", ".git"))
"""Directories whose content does not count: running a program changes them."""


class _TooLarge(Exception):
    pass


async def digests(
    spec: RevisionSpec, code_dir: Path, *, sees_paths: bool
) -> tuple[tuple[SourceDigest, ...], tuple[FieldError, ...]]:
    """(digest of each source, what is missing). `sees_paths`: local paths are on this machine."""
    found = list(image_sources(spec))
    errors: list[FieldError] = []
    for i, mount in enumerate(spec.mounts):
        at = f"storage[{i}]"
        if mount.source is not None:
            known = mount_source(i, mount)
            found += [known] if known else []
            continue
        digest = await asyncio.to_thread(_of_mount, mount, at, code_dir, sees_paths, errors)
        found.append(SourceDigest(source=at, digest=digest))
    if spec.python_requirements:
        listed = "\n".join(spec.python_requirements)
        found.append(SourceDigest(source="containers[0].prepare.pythonRequirements", digest=_sha256(listed.encode())))
    if spec.python_requirements_path is not None and not _elsewhere(spec, spec.python_requirements_path):
        source = "containers[0].prepare.pythonRequirementsPath"
        digest = await asyncio.to_thread(_of_requirements, spec, sees_paths)
        found.append(SourceDigest(source=source, digest=digest))
    return tuple(found), tuple(errors)


def changed_sources(
    number: int, before: tuple[SourceDigest, ...], now: tuple[SourceDigest, ...]
) -> tuple[str, ...]:  # fmt: skip
    """A sentence for each source that is, or may be, no longer what a revision was admitted with."""
    found = {s.source: s.digest for s in now}
    told = []
    for source in before:
        digest = found.get(source.source, MUTABLE)
        if MUTABLE in (source.digest, digest):
            told.append(f"{source.source} can change under a revision: whether it is as revision {number} was admitted "
                        "with is not known")  # fmt: skip
        elif digest != source.digest:
            told.append(f"{source.source} is no longer what revision {number} was admitted with: {source.digest} then, "
                        f"{digest} now")  # fmt: skip
    return tuple(told)


def _elsewhere(spec: RevisionSpec, path: str) -> bool:
    """Whether a file lies in the image or in what a replica fetches: it is as fixed as that."""
    mount = _mount_of(spec, path)
    return spec.image is not None if mount is None else mount.source is not None


def _mount_of(spec: RevisionSpec, path: str) -> Mount | None:
    return next((m for m in spec.mounts if path == m.mount_path or path.startswith(m.mount_path + "/")), None)


def _of_requirements(spec: RevisionSpec, sees_paths: bool) -> str:
    """Digest of a requirements file inside a mount; inside an archive, the archive's own."""
    inside = spec.python_requirements_path or ""
    mount = _mount_of(spec, inside)
    if mount is None or mount.code_digest is not None:
        return MUTABLE if mount is None or mount.code_digest is None else mount.code_digest
    if not sees_paths or not mount.read_only or mount.host_path is None:
        return MUTABLE
    return tree_digest(Path(mount.host_path + inside.removeprefix(mount.mount_path)))


def _of_mount(mount: Mount, at: str, code_dir: Path, sees_paths: bool, errors: list[FieldError]) -> str:
    if mount.code_digest is not None:
        if not archive(code_dir, mount.code_digest).exists():
            errors.append(FieldError(path=f"{at}.local.digest", code="NOT_UPLOADED", message="no such archive is here",
                                     hint="upload the code first; the CLI does it by itself"))  # fmt: skip
        return mount.code_digest
    assert mount.host_path is not None
    if not sees_paths:
        return MUTABLE
    path = Path(mount.host_path)
    if not os.path.exists(path):  # false, not an error, where a directory above cannot be entered
        errors.append(FieldError(path=f"{at}.local.path", code="NOT_FOUND", message=f"{path} does not exist here",
                                 hint="the path is read on the machine where the replicas run"))  # fmt: skip
    if not mount.read_only:
        return MUTABLE
    return tree_digest(path)


def archive(code_dir: Path, digest: str) -> Path:
    """Where an uploaded archive lies."""
    return code_dir / f"{digest.removeprefix('sha256:')}.tar.gz"


def tree_digest(root: Path) -> str:
    """`sha256:…` over names, kinds, executable bits and contents below `root`, or `mutable` where it is too large.

    What cannot be read makes it `mutable` too: its content is not known.
    """
    total = hashlib.sha256()
    left = [MAX_BYTES, MAX_FILES]
    try:
        if root.is_dir():
            for directory, names, files in os.walk(root, onerror=_raise):
                names[:] = sorted(name for name in names if name not in SKIPPED)
                links = [name for name in names if (Path(directory) / name).is_symlink()]
                for name in sorted([*files, *links]):
                    path = Path(directory) / name
                    total.update(_entry(path, str(path.relative_to(root)), left))
        else:
            total.update(_entry(root, root.name, left))
    except (OSError, _TooLarge):
        return MUTABLE
    return f"sha256:{total.hexdigest()}"


def _raise(error: OSError) -> None:
    raise error


def _entry(path: Path, name: str, left: list[int]) -> bytes:
    """Digest of one file or link."""
    status = path.lstat()
    left[1] -= 1
    if stat.S_ISLNK(status.st_mode):
        content, kind = _sha256(os.readlink(path).encode(errors="surrogateescape")), "link"
    elif stat.S_ISREG(status.st_mode):
        left[0] -= status.st_size
        if min(left) < 0:
            raise _TooLarge
        with path.open("rb") as file:
            content = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        kind = "program" if status.st_mode & 0o100 else "file"
    else:
        content, kind = "", "other"
    if left[1] < 0:
        raise _TooLarge
    line = f"{kind}\0{content}\0{name}\n"
    return hashlib.sha256(line.encode(errors="surrogateescape")).digest()


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
