"""The file system a replica sees: carries out the mounts that decide/layout.py planned. Part of launch.py."""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from easel_agent.launch_kernel import CLONE_NEWUSER, StageError, call, libc, tell, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from easel_agent.launch_kernel import Plan

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, 0o2000000, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_IDMAP = 1, 2, 0x00100000
# Numbers from the kernel's tables; those above 424 are the same on every architecture.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def build_root(plan: Plan, control: socket.socket) -> None:
    """Carry out the plan's mounts under `plan['root']` and make that the root of all that is visible."""
    root = plan["root"]
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    for verb, *rest in plan["mounts"]:
        OPERATIONS[verb](root, control, *rest)
    for path in reversed(plan["freeze"]):
        set_readonly(root + path, recursive=False)
    try:
        os.chdir(root)
        number = SYS_PIVOT_ROOT[os.uname().machine]
        call("mount", "pivot_root", libc.syscall(number, b".", b"."))
        call("mount", "umount", libc.umount2(b".", MNT_DETACH))
        os.chdir("/")
    except OSError as error:
        raise StageError("mount", error, "enter the new root") from error


def _point(root: str, path: str, *, directory: bool) -> str:
    """Make sure that something can be mounted at `path`; refuses to follow a link out of the new root."""
    target = root + path
    if os.path.realpath(target) != target.rstrip("/"):
        raise StageError("mount", OSError(errno.ELOOP, os.strerror(errno.ELOOP)), f"{path} passes through a link")
    try:
        if directory:
            os.makedirs(target, mode=0o755, exist_ok=True)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise StageError("mount", error, f"make a mount point at {path}") from error
    return target


def op_dir(root: str, _: socket.socket, path: str, mode: int) -> None:
    os.chmod(_point(root, path, directory=True), mode)


def op_link(root: str, _: socket.socket, path: str, target: str) -> None:
    if not os.path.lexists(root + path):
        _point(root, os.path.dirname(path), directory=True)
        os.symlink(target, root + path)


def op_tmpfs(root: str, _: socket.socket, path: str, options: str) -> None:
    mount("tmpfs", _point(root, path, directory=True), "tmpfs", MS_NOSUID | MS_NODEV, options)


def op_proc(root: str, _: socket.socket, path: str) -> None:
    mount("proc", _point(root, path, directory=True), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def op_bind(root: str, _: socket.socket, source: str, path: str, writable: bool) -> None:
    target = _bind_point(root, source, path)
    mount(source, target, None, MS_BIND | MS_REC)
    set_readonly(target, recursive=True, writable=writable)


def op_owned(root: str, control: socket.socket, source: str, path: str, writable: bool, owner: int, uid: int) -> None:
    """Bind so that what `owner` has on disk belongs to `uid` inside (an idmapped mount, Linux 5.12).

    File systems that cannot do this get a plain bind, and the agent is told.
    """
    target = _bind_point(root, source, path)
    try:
        _bind_mapped(source, target, (owner, os.stat(source).st_gid), uid)
    except StageError as error:
        tell(control, f"note {path}: owners cannot be mapped here ({error.text}); files keep their owner and rights")
        mount(source, target, None, MS_BIND | MS_REC)
    set_readonly(target, recursive=True, writable=writable)


def _bind_point(root: str, source: str, path: str) -> str:
    try:
        is_directory = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise StageError("mount", error, f"{source} (for {path})") from error
    return _point(root, path, directory=is_directory)


def _bind_mapped(source: str, target: str, owner: tuple[int, int], uid: int) -> None:
    namespace = _mapping(owner, uid)
    tree = libc.syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE)
    try:
        call("mount", f"open {source}", tree)
        _setattr(tree, b"", AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, namespace)
        moved = libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
        call("mount", f"mount {source}", moved)
    finally:
        os.close(namespace)
        if tree >= 0:
            os.close(tree)


def _mapping(owner: tuple[int, int], uid: int) -> int:
    """A user namespace that maps `owner` (uid, gid) on disk to `uid`; only its descriptor is used."""
    hold_read, hold_write = os.pipe2(os.O_CLOEXEC)
    made_read, made_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(hold_write)
        # /proc is still the machine's: our pid there is not the one that fork told
        os.write(made_write, os.readlink("/proc/self").encode() if libc.unshare(CLONE_NEWUSER) == 0 else b"0")
        os.read(hold_read, 1)
        os._exit(0)
    try:
        name = os.read(made_read, 20).decode()
        if name == "0":
            raise StageError("mount", OSError(errno.EPERM, "no user namespace"), "map owners")
        for kind, number in (("uid", owner[0]), ("gid", owner[1])):
            write(f"/proc/{name}/{kind}_map", f"{number} {uid} 1")
        return os.open(f"/proc/{name}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StageError("mount", error, "map owners") from error
    finally:
        for descriptor in (hold_read, hold_write, made_read, made_write):
            os.close(descriptor)
        os.waitpid(pid, 0)


OPERATIONS: dict[str, Callable[..., None]] = {
    "dir": op_dir, "link": op_link, "tmpfs": op_tmpfs, "proc": op_proc, "bind": op_bind, "owned": op_owned,
}  # fmt: skip


class MountAttr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64), ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64), ("userns_fd", ctypes.c_uint64),
    )  # fmt: skip


def _setattr(descriptor: int, path: bytes, flags: int, attributes: int, userns: int = 0) -> None:
    attr = MountAttr(attributes, 0, 0, userns)
    result = libc.syscall(SYS_MOUNT_SETATTR, descriptor, path, flags, ctypes.byref(attr), ctypes.sizeof(attr))
    call("mount", "mount_setattr", result)


def set_readonly(target: str, *, recursive: bool, writable: bool = False) -> None:
    """Forbid set-uid programs below `target`, and writing unless `writable`."""
    attributes = MOUNT_ATTR_NOSUID | (0 if writable else MOUNT_ATTR_RDONLY)
    try:
        _setattr(AT_FDCWD, target.encode(), AT_RECURSIVE if recursive else 0, attributes)
    except StageError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        _remount_each(target, recursive, writable)


def _remount_each(target: str, recursive: bool, writable: bool) -> None:
    """Before Linux 5.12: each mount at and below `target` by itself, keeping the flags it has."""
    flags_of = {"nodev": MS_NODEV, "noexec": MS_NOEXEC, "ro": MS_RDONLY}
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        rows = [line.split() for line in stream]
    for row in rows:
        point = row[4].encode().decode("unicode_escape")
        if point == target or (recursive and point.startswith(target + "/")):
            kept = sum(flags_of.get(option, 0) for option in row[5].split(","))
            flags = MS_REMOUNT | MS_BIND | MS_NOSUID | kept | (0 if writable else MS_RDONLY)
            mount("none", point, None, flags)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2); raises StageError('mount')."""
    result = libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, data.encode())
    call("mount", f"mount {kind or source} at {target}", result)
