"""Rules that join the keys of `storage[]`: one kind each, sound addresses, mount paths that do not overlap."""

from __future__ import annotations

import re
from typing import Any

from easel_control.decide.check import Checker
from easel_control.decide.images import image_problem

KINDS = ("local", "git", "image", "oss", "nfs", "empty_dir")
BY_ENGINE = ("image", "nfs")
"""What only a container engine mounts or copies: a process's node may have none."""
SHM = "/dev/shm"
SYSTEM_TREES = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
"""Nothing may be mounted here or below, except scratch memory at /dev/shm."""
SYSTEM_PATHS = ("/", "/home", "/opt", "/root", "/run", "/tmp", "/var")
"""Mounts may lie below these, but not on them: they would hide what a program needs to run."""
NO_STORES = frozenset(
    ("file", "local", "memory", "data", "dir", "http", "https", "ftp", "sftp", "ssh", "smb", "git", "github", "gist",
     "zip", "tar", "libarchive", "reference", "generic", "cached", "blockcache", "filecache", "simplecache", "dask",
     "jupyter", "jlab")
)  # fmt: skip
"""Schemes that fsspec knows and that name no object store: some would read files of the node itself."""

_HTTP = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9.-]+:[^\s/]\S*")
_ENDPOINT = re.compile(r"(?:https?://)?[^\s/?#@]+(?:/[^\s?#@]*)?")
_OBJECTS = re.compile(r"([a-z][a-z0-9]*)://([^\s/@:?#]+)(/[^\s?#]*)?")


def check_storage(to: Checker, config: dict[str, Any], wrong: frozenset[str], *, image: bool) -> None:
    """All rules of mounts; errors go to `to`. `image`: the deployment is one of images."""
    earlier: list[tuple[str, str]] = []
    for i, entry in enumerate(config.get("storage", [])):
        if entry is None:
            continue
        at = f"storage[{i}]"
        _check_kind(to, at, entry, wrong, image=image)
        if "mount_path" in entry:
            _check_place(to, at, entry, earlier)
            if clean_path(entry["mount_path"]) == SHM and "shm_size" in config.get("metadata", {}):
                to.add(f"{at}.mount_path", "CONFLICT", "`metadata.shm_size` gives the size of /dev/shm already",
                       "keep one of them")  # fmt: skip


def _check_kind(to: Checker, at: str, entry: dict[str, Any], wrong: frozenset[str], *, image: bool) -> None:
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) > 1:
        to.add(f"{at}.{kinds[1]}", "CONFLICT", f"`{kinds[0]}` and `{kinds[1]}` are both given for one mount",
               "give each an entry of its own")  # fmt: skip
    if not kinds and not any(p.startswith(f"{at}.") and p != f"{at}.mount_path" for p in wrong):
        to.add(f"{at}.local", "MISSING", f"nothing says what is mounted; one of {', '.join(KINDS)} is needed",
               '"local": {"path": "/absolute/path"}')  # fmt: skip
    for kind in kinds:
        if kind in BY_ENGINE and not image:
            to.add(f"{at}.{kind}", "NOT_SUPPORTED_YET", f"`{at}.{kind}` is not supported yet without an image",
                   "give `containers[0].image`, or mount by `local`, `git` or `oss`")  # fmt: skip
        if kind == "empty_dir" and not image and entry[kind].get("medium") == "memory":
            to.add(f"{at}.empty_dir.medium", "NOT_SUPPORTED_YET",
                   "scratch memory is not supported yet without an image",
                   "a process has /dev/shm, or takes the disk")  # fmt: skip
        if kind in CHECKS:
            CHECKS[kind](to, f"{at}.{kind}", entry[kind], wrong)


def _check_local(to: Checker, at: str, local: dict[str, Any], wrong: frozenset[str]) -> None:
    if not {"path", "digest"} & local.keys() and not {f"{at}.path", f"{at}.digest"} & wrong:
        to.add(f"{at}.path", "MISSING", "one of `path` and `digest` is missing")
    elif "digest" in local and local.get("readOnly") is False:
        to.add(f"{at}.readOnly", "CONFLICT", "an uploaded archive is read-only", "leave readOnly out")


def _check_git(to: Checker, at: str, git: dict[str, Any], wrong: frozenset[str]) -> None:
    """The address is not repeated: somebody may have put a password into it."""
    repo = git.get("repo")
    if repo is not None and not _HTTP.fullmatch(repo):
        if re.match(r"[a-z+]+://[^/\s]*@", repo):
            hint = "give `username` and `password` (it is kept encrypted) instead"
            to.add(f"{at}.repo", "WRONG_VALUE", "a user name or password stands in the address", hint)
        else:
            hint = "a node has no keys for ssh" if repo.startswith("ssh:") or _SCP.fullmatch(repo) else ""
            if repo.startswith(("file:", "/", ".")):
                hint = "files of a node are mounted by `local`"
            to.add(f"{at}.repo", "WRONG_VALUE", "the address of a repository starts with https:// or http://", hint)
    if "username" in git and "password" not in git and f"{at}.password" not in wrong:
        to.add(
            f"{at}.password", "MISSING", "`username` has no `password`, and none is kept for this repository and user"
        )
    if "password" in git and "username" not in git and f"{at}.username" not in wrong:
        to.add(f"{at}.username", "MISSING", "`password` has no `username`",
               "servers that take access tokens take them for any user name, such as `git`")  # fmt: skip


def _check_image(to: Checker, at: str, image: dict[str, Any], wrong: frozenset[str]) -> None:
    if problem := image_problem(image["image"]) if "image" in image else None:
        to.add(f"{at}.image", "WRONG_VALUE", *problem)
    if ".." in image.get("path", "").split("/"):
        to.add(f"{at}.path", "WRONG_VALUE", "the path leads out of its place", "write it without `..`")


def _check_oss(to: Checker, at: str, oss: dict[str, Any], wrong: frozenset[str]) -> None:
    """The addresses are not repeated: somebody may have put a key into them."""
    path = oss.get("path")
    found = _OBJECTS.fullmatch(path) if path is not None else None
    if path is not None and (found is None or ".." in (found[3] or "").split("/")):
        to.add(f"{at}.path", "WRONG_VALUE", "this is not the address of a prefix in an object store",
               "SCHEME://BUCKET/PREFIX/ without keys in it, for example `oss://models/ocr/v1/`")  # fmt: skip
    elif found is not None and found[1] in NO_STORES:
        to.add(f"{at}.path", "WRONG_VALUE", f"{found[1]}:// is no object store",
               "files of a node are mounted by `local`, repositories by `git`")  # fmt: skip
    if not _ENDPOINT.fullmatch(oss.get("endpoint", "host")):
        to.add(f"{at}.endpoint", "WRONG_VALUE", "this is neither a host nor an http(s):// address",
               "for example `oss-cn-shanghai.aliyuncs.com`, without user name and password")  # fmt: skip
    if oss.get("readOnly") is False:
        to.add(f"{at}.readOnly", "NOT_SUPPORTED_YET",
               "writing to an object store through a mount is not supported yet: Easel copies the prefix to the node",
               "leave readOnly out; a program that writes uses the store's own client")  # fmt: skip


def _check_nfs(to: Checker, at: str, nfs: dict[str, Any], wrong: frozenset[str]) -> None:
    if ".." in nfs.get("path", "").split("/"):
        to.add(f"{at}.path", "WRONG_VALUE", "the path leads out of its place", "write it without `..`")


CHECKS = {
    "local": _check_local, "git": _check_git, "image": _check_image, "oss": _check_oss, "nfs": _check_nfs,
}  # fmt: skip


def _check_place(to: Checker, at: str, entry: dict[str, Any], earlier: list[tuple[str, str]]) -> None:
    """The mount path is no place of the system, and overlaps with no earlier one."""
    path: str = entry["mount_path"]
    clean = clean_path(path)
    is_shm = clean == SHM and entry.get("empty_dir", {}).get("medium") == "memory"
    system = clean in SYSTEM_PATHS or any(is_inside(clean, tree) for tree in SYSTEM_TREES)
    if ".." in path.split("/") or (system and not is_shm):
        hint = "choose a path such as /code or /mnt/model"
        if clean == SHM:
            hint = '/dev/shm is for `"empty_dir": {"medium": "memory"}`'
        to.add(f"{at}.mount_path", "WRONG_VALUE", f"{path} is a place of the system, or leads out of its place", hint)
    for other, where in earlier:
        if is_inside(clean, other) or is_inside(other, clean):
            to.add(f"{at}.mount_path", "CONFLICT", f"{path} overlaps with {where}.mount_path, {other}")
    earlier.append((clean, at))


def clean_path(path: str) -> str:
    """The path with single slashes and none at the end."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def is_inside(path: str, directory: str) -> bool:
    """Whether a path is a directory or below it; both clean."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")
