"""Decides the file system a replica sees: which mounts, in which order, so that nothing is created on the host.

The new root is an empty tmpfs. The machine's top-level directories appear in it read-only; /tmp, /run, /dev and /proc
are the replica's own. Then, from the root down:

- a *cover* (an empty tmpfs) hides a directory: one of the platform's own, or one that the replica's user may not pass
  through but that lies on the way to something it needs (e.g. an interpreter below /root);
- a *skeleton* (an empty tmpfs with the directory's entries bound back) stands where a mount point does not exist yet;
- a *target* is what the replica needs at a path: a mount of the service, its own directories, its Python.

Covers and skeletons are frozen (read-only) when all mounts are there. Paths are real paths: no link on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from posixpath import dirname, join, normpath
from typing import Literal, Protocol

from msgspec import Struct

Kind = Literal["dir", "file", "link", "special"]
OWN_TOP = frozenset({"proc", "dev", "tmp", "run", "sys", "boot", "lost+found", "old_root"})
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
Operation = tuple[object, ...]
BASE, COVER, TARGET = 0, 1, 2
"""Order of mounts at the same depth."""


class FileView(Protocol):
    """What the decision may know of the machine's files."""

    def kind(self, path: str) -> Kind | None:
        """None: there is nothing."""

    def children(self, path: str) -> Sequence[str]:
        """Names in a directory."""

    def link_target(self, path: str) -> str:
        """Text of a link."""

    def passable(self, path: str) -> bool:
        """May the replica's user go through this directory?"""


class Target(Struct, frozen=True, kw_only=True):
    """Something the replica needs to see at `path`."""

    path: str
    source: str
    writable: bool = False
    owner: int | None = None
    """The uid on disk that should be the replica's own user inside; None: as it is."""


class Layout(Struct, frozen=True, kw_only=True):
    """Mounts in the order in which they are made, and what is made read-only at the end."""

    mounts: tuple[Operation, ...]
    freeze: tuple[str, ...]


def layout(view: FileView, targets: Sequence[Target], hidden: Iterable[str], uid: int | None,
           shm_mib: int) -> Layout:  # fmt: skip
    """The mounts for a replica whose user is `uid` (None: the agent's own), see the module's text."""
    covers = _covers(view, targets, hidden)
    skeletons = _skeletons(view, targets, covers)
    steps: list[tuple[int, int, Operation]] = [(1, BASE, step) for step in _top(view, skeletons | covers)]
    for path in skeletons:
        depth = path.count("/")
        steps.append((depth, COVER, ("tmpfs", path, "mode=755,size=1m")))
        steps += [(depth + 1, BASE, step) for step in _entries(view, path, view.children(path), skeletons | covers)]
    steps += [(path.count("/"), COVER, ("tmpfs", path, "mode=755,size=1m")) for path in covers]
    steps += [(target.path.count("/"), TARGET, _mount(target, uid)) for target in targets]
    steps.sort(key=lambda step: step[:2])
    mounts = [step for _, _, step in steps] + _devices(view, shm_mib)
    frozen = sorted({*covers, *skeletons, "/run", "/dev"}, key=lambda path: path.count("/"))
    return Layout(mounts=tuple(mounts), freeze=("", *frozen))


def links_on_the_way(view: FileView, path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The real path of `path`, and the links (path, text) passed through to reach it."""
    links: list[tuple[str, str]] = []
    todo, done = [part for part in path.split("/") if part], ""
    while todo:
        here = f"{done}/{todo.pop(0)}"
        if view.kind(here) == "link" and len(links) < 40:
            text = view.link_target(here)
            links.append((here, text))
            whole = normpath(join(done or "/", text))
            todo, done = [part for part in whole.split("/") if part] + todo, ""
        else:
            done = here
    return done or "/", tuple(links)


def visible(view: FileView, path: str, hidden: Iterable[str]) -> bool:
    """Does the replica see `path` without a target of its own?"""
    if path.split("/")[1] in OWN_TOP or any(within(path, cover) for cover in hidden):
        return False
    return all(view.passable(ancestor) for ancestor in _ancestors(path))


def within(path: str, directory: str) -> bool:
    """Is `path` the directory or something in it?"""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _covers(view: FileView, targets: Sequence[Target], hidden: Iterable[str]) -> set[str]:
    wanted = {path for path in hidden if view.kind(path) == "dir"}
    for target in targets:
        wanted |= {path for path in _ancestors(target.path) if view.kind(path) == "dir" and not view.passable(path)}
    private = {path for path in wanted if path.split("/")[1] in OWN_TOP}
    return {
        path for path in wanted - private if not any(path != other and within(path, other) for other in wanted)
    }  # fmt: skip


def _skeletons(view: FileView, targets: Sequence[Target], covers: set[str]) -> set[str]:
    found: set[str] = set()
    for target in targets:
        if target.path.split("/")[1] in OWN_TOP or any(within(target.path, cover) for cover in covers):
            continue
        if view.kind(target.path) is None:
            existing = next((path for path in reversed(_ancestors(target.path)) if view.kind(path)), "/")
            if existing != "/":
                found.add(existing)
    return found


def _ancestors(path: str) -> list[str]:
    """Every directory above `path` but the root, from the top."""
    found: list[str] = []
    path = dirname(path)
    while path != "/":
        found.append(path)
        path = dirname(path)
    return found[::-1]


def _top(view: FileView, replaced: set[str]) -> list[Operation]:
    steps = _entries(view, "/", [name for name in view.children("/") if name not in OWN_TOP], replaced)
    steps += [("proc", "/proc"), ("tmpfs", "/run", "mode=755,size=1m"), ("tmpfs", "/dev", "mode=755,size=1m")]
    if view.kind("/sys") == "dir":
        steps.append(("bind", "/sys", "/sys", False))
    if view.kind("/run/systemd/resolve") == "dir":  # /etc/resolv.conf is often a link to a file in it
        steps.append(("bind", "/run/systemd/resolve", "/run/systemd/resolve", False))
    return steps


def _entries(view: FileView, path: str, names: Iterable[str], replaced: set[str]) -> list[Operation]:
    steps: list[Operation] = []
    for name in names:
        entry = join(path, name)
        kind = view.kind(entry)
        if kind == "link":
            steps.append(("link", entry, view.link_target(entry)))
        elif kind == "dir" and entry in replaced:
            steps.append(("dir", entry, 0o755))
        elif kind == "dir" or (kind == "file" and path != "/"):
            steps.append(("bind", entry, entry, False))
    return steps


def _mount(target: Target, uid: int | None) -> Operation:
    if target.owner is not None and uid is not None and target.owner != uid:
        return ("owned", target.source, target.path, target.writable, target.owner, uid)
    return ("bind", target.source, target.path, target.writable)


def _devices(view: FileView, shm_mib: int) -> list[Operation]:
    names = [*DEVICES, *(name for name in view.children("/dev") if name.startswith(("nvidia", "kfd", "dri")))]
    steps: list[Operation] = [
        ("bind", f"/dev/{name}", f"/dev/{name}", True) for name in names if view.kind(f"/dev/{name}") is not None
    ]
    links = {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
    }
    steps += [("link", f"/dev/{name}", text) for name, text in links.items()]
    steps.append(("tmpfs", "/dev/shm", f"mode=1777,size={shm_mib}m"))
    return steps
