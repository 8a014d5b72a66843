"""The small program between the agent and a replica: separates, limits what is seen, drops rights, starts, reaps.

Run as a script, `python -I -S launch.py <control fd>`, never imported by the agent's process. Its standard input is a
marshalled plan (see `sandbox.Plan.to_wire`), its control socket (SOCK_SEQPACKET) carries short messages both ways.
It must never create anything outside the new root, and never start the program before the agent has said `go`.

Lives of the processes:

    agent ── outer: makes the namespaces, forks, ends
      └───── init: (outer being gone, a child of the agent, which is a subreaper) sets the parent-death signal,
             │     builds and enters the new root, then starts jobs, reaps orphans, and ends with job 0
             └── job 0: the program · job n: an exec probe

`init` is process 1 of a new pid namespace where one can be made, so the kernel ends everything in it together with
`init`; elsewhere it is a subreaper and kills its descendants itself. Each job announces itself and waits for `go`:
the kernel tells the agent the sender's pid in the agent's own namespace (SCM_CREDENTIALS), and the agent puts it under
the replica's limits first.

To the agent:   `init` · `job N` · `running N` · `exited N <wait status>`
                `note <text>` · `error <stage> <errno> <text>`
From the agent: `go` · `signal N` · `run <marshalled (job, argv)>` · `kill N`
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import resource
import select
import signal
import socket
import stat
import sys

TYPE_CHECKING = False  # importing typing costs each start four milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Plan = dict[str, Any]

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 1, 0o2000000, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_IDMAP = 1, 2, 0x00100000
# Numbers from the kernel's tables; those above 424 are the same on every architecture.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

libc = ctypes.CDLL(None, use_errno=True)


class StageError(Exception):
    """A step of the start failed; `stage` says which."""

    def __init__(self, stage: str, error: OSError, what: str) -> None:
        super().__init__(what)
        self.stage, self.errno, self.text = stage, error.errno or 0, f"{what}: {error.strerror or error}"


def main() -> NoReturn:
    """Outer process: read the plan, make the namespaces, fork `init`, end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    plan = _read_plan()
    try:
        separate(plan)
    except StageError as error:
        fail(control, error)
    if os.fork():
        os._exit(0)
    try:
        init(plan, control)
    except StageError as error:
        fail(control, error)
    except OSError as error:
        fail(control, StageError("internal", error, "init"))
    os._exit(1)


def _read_plan() -> Plan:
    with open(0, "rb", closefd=False) as stream:
        plan: Plan = marshal.loads(stream.read())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return plan


def fail(control: socket.socket, error: StageError) -> NoReturn:
    """Tell the agent why there will be no replica, and end."""
    control.send(f"error {error.stage} {error.errno} {error.text}".encode()[:4096])
    os._exit(1)


# ---- outer: namespaces


def separate(plan: Plan) -> None:
    """Enter the new namespaces the plan asks for."""
    flags = (CLONE_NEWUSER if plan["user_ns"] else 0) | (CLONE_NEWNS if plan["mount_ns"] else 0)
    flags |= CLONE_NEWPID if plan["pid_ns"] else 0
    uid, gid = os.getuid(), os.getgid()
    if flags:
        _call("separate", "unshare", libc.unshare(flags))
    if plan["user_ns"]:
        try:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
        except OSError as error:
            raise StageError("separate", error, "map the user into a namespace") from error


# ---- init


def init(plan: Plan, control: socket.socket) -> NoReturn:
    """Process 1 of the replica: see the module's text."""
    control.send(b"init")
    if control.recv(16) != b"go":
        os._exit(1)
    if plan["pid_ns"]:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if plan["mount_ns"]:
        build_root(plan, control)
    jobs = {start(plan, control, 0, plan["argv"]): 0}
    serve(plan, control, wake_read, jobs)


def serve(plan: Plan, control: socket.socket, wake: int, jobs: dict[int, int]) -> NoReturn:
    """Reap and obey until the program has ended or the agent is gone."""
    poller = select.poll()
    poller.register(wake, select.POLLIN)
    poller.register(control, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if wake in ready:
            os.read(wake, 4096)
            if reap(control, jobs):
                end(plan)
        if control.fileno() in ready:
            message = control.recv(1 << 16)
            if not message:
                end(plan)
            obey(plan, control, message, jobs)


def reap(control: socket.socket, jobs: dict[int, int]) -> bool:
    """Collect ended children, report jobs; True when the program (job 0) is among them."""
    program_ended = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return program_ended
        if not pid:
            return program_ended
        job = jobs.pop(pid, None)
        if job is not None:
            _tell(control, f"exited {job} {status}")
        program_ended = program_ended or job == 0


def obey(plan: Plan, control: socket.socket, message: bytes, jobs: dict[int, int]) -> None:
    """One command of the agent."""
    verb, _, rest = message.partition(b" ")
    if verb == b"run":
        job, argv = marshal.loads(rest)
        try:
            jobs[start(plan, control, job, argv)] = job
        except StageError as error:
            _tell(control, f"failed {job} {error.text}")
        return
    wanted = 0 if verb == b"signal" else int(rest)
    number = int(rest) if verb == b"signal" else signal.SIGKILL
    for pid, job in list(jobs.items()):
        if job == wanted:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                continue


def end(plan: Plan) -> NoReturn:
    """Leave nothing of the replica behind. In a pid namespace the kernel does it when process 1 ends."""
    if not plan["pid_ns"]:
        while True:
            for pid in descendants(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    os._exit(0)


def descendants(root: int) -> list[int]:
    """All processes below `root`, from /proc."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


# ---- the new root


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
        _call("mount", "pivot_root", libc.syscall(number, b".", b"."))
        _call("mount", "umount", libc.umount2(b".", MNT_DETACH))
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
        _tell(control, f"note {path}: owners cannot be mapped here ({error.text}); files keep their owner and rights")
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
        _call("mount", f"open {source}", tree)
        _setattr(tree, b"", AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, namespace)
        moved = libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
        _call("mount", f"mount {source}", moved)
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
            _write(f"/proc/{name}/{kind}_map", f"{number} {uid} 1")
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
    _call("mount", "mount_setattr", result)


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
    _call("mount", f"mount {kind or source} at {target}", result)


# ---- jobs


def start(plan: Plan, control: socket.socket, job: int, argv: list[str]) -> int:
    """Fork a job, wait until it has become its program; its pid. Raises StageError when it could not."""
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(plan, control, job, argv, failed_write)
    os.close(failed_write)
    with open(failed_read, "rb") as stream:
        failure = stream.read()
    if failure:
        os.waitpid(pid, 0)
        stage, number, text = failure.decode().split(" ", 2)
        raise StageError(stage, OSError(int(number), text), argv[0])
    control.send(f"running {job}".encode())
    return pid


def _become(plan: Plan, control: socket.socket, job: int, argv: list[str], failed: int) -> NoReturn:
    stage = "command"
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        if job:  # probes have no place in the replica's log
            null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(null, 1)
            os.dup2(null, 2)
        control.send(f"job {job}".encode())
        if control.recv(16) != b"go":
            os._exit(1)
        stage = "rights"
        drop_rights(plan)
        stage = "cwd"
        os.chdir(plan["cwd"])
        stage = "command"
        os.execvpe(argv[0], argv, plan["env"])
    except OSError as error:
        os.write(failed, f"{stage} {error.errno or 0} {error.strerror or error}".encode())
    except StageError as error:
        os.write(failed, f"{stage} {error.errno} {error.text}".encode())
    except ValueError as error:  # e.g. a null byte in an argument
        os.write(failed, f"{stage} {errno.EINVAL} {error}".encode())
    os._exit(127)


def drop_rights(plan: Plan) -> None:
    """Become the replica's user for good: no capability, no set-uid program can give anything back."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    if plan["uid"] is not None:
        os.setgroups([])
        os.setresgid(plan["uid"], plan["uid"], plan["uid"])
        os.setresuid(plan["uid"], plan["uid"], plan["uid"])
    _call("rights", "no_new_privs", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if not plan["pid_ns"]:  # after the change of user, which clears it
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


# ---- small things


def _call(stage: str, what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise StageError(stage, OSError(number, os.strerror(number)), what)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _tell(control: socket.socket, text: str) -> None:
    try:
        control.send(text.encode()[:4096])
    except BrokenPipeError:
        return  # the agent is gone: the next read of the socket says so too


if __name__ == "__main__":
    main()
