"""Decides whether a service's mounts may be made. Rules: mount paths of EAS (no system directory, no overlap), and
nothing of Easel's own is ever handed to a replica."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from posixpath import isabs, normpath

from easel_agent.decide.layout import within
from easel_contracts.spec import Mount, ScratchSource

SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys",
          "/usr", "/var/run")  # fmt: skip
WHOLE = ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")
"""Directories that cannot be replaced as a whole; paths in them can."""


def refusal(mounts: Sequence[Mount], hidden: Iterable[str]) -> str | None:
    """Why these mounts cannot be made, with what is allowed; None when they can."""
    seen: list[str] = []
    for mount in mounts:
        path = normpath(mount.mount_path)
        why = _path_refusal(path, mount) or _source_refusal(mount, hidden)
        if why:
            return why
        for other in seen:
            if within(path, other) or within(other, path):
                return f"Mount paths overlap: {other} and {path}. Each mount needs a directory of its own."
        seen.append(path)
    return None


def _path_refusal(path: str, mount: Mount) -> str | None:
    if path == "/dev/shm" and isinstance(mount.source, ScratchSource) and mount.source.medium == "memory":
        return None
    if not isabs(path):
        return f"mount_path {path!r} must be an absolute path, e.g. /mnt/data."
    if path in WHOLE or any(within(path, system) for system in SYSTEM):
        return f"mount_path {path} is a system directory; use a path like /mnt/data, /ml/model or /ml/usercode."
    return None


def _source_refusal(mount: Mount, hidden: Iterable[str]) -> str | None:
    if mount.host_path is None:
        return None if mount.code_digest or mount.source else f"The mount at {mount.mount_path} has no source."
    source = normpath(mount.host_path)
    if not isabs(source):
        return f"The source of {mount.mount_path} must be an absolute path on the node; got {mount.host_path!r}."
    if source == "/" or any(within(source, own) or within(own, source) for own in hidden):
        return f"{source} holds files of Easel itself and cannot be mounted. Move the data to a directory of its own."
    if any(within(source, system) for system in ("/proc", "/sys", "/dev")):
        return f"{source} is not a directory of files and cannot be mounted."
    return None
