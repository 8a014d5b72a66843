"""The small program between the agent and a replica: separates, limits what is seen, drops rights, starts, reaps.

Run as a program of its own, `python -I -S -B -c PROGRAM <control fd> <where easel_agent lies>`, never called in the
agent's process. Its standard input is a marshalled plan (see `sandbox.Plan.to_wire`), its control socket
(SOCK_SEQPACKET) carries short messages both ways. It must never create anything outside the new root, and never start
the program before the agent has said `go`. This file and the launch_*.py beside it import the standard library and each
other, nothing else: what they import, every replica pays for in its start and in its `init`.

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

import marshal
import os
import select
import signal
import socket
import sys

from easel_agent.launch_job import start
from easel_agent.launch_kernel import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    StageError,
    call,
    libc,
    tell,
    write,
)
from easel_agent.launch_root import build_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from easel_agent.launch_kernel import Plan

PROGRAM = "import sys; sys.path.append(sys.argv[2]); from easel_agent.launch import main; main()"
"""Added last: -I leaves only the standard library to import from, and nothing of ours may stand in its place."""


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
        call("separate", "unshare", libc.unshare(flags))
    if plan["user_ns"]:
        try:
            write("/proc/self/setgroups", "deny")
            write("/proc/self/uid_map", f"{uid} {uid} 1")
            write("/proc/self/gid_map", f"{gid} {gid} 1")
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
            tell(control, f"exited {job} {status}")
        program_ended = program_ended or job == 0


def obey(plan: Plan, control: socket.socket, message: bytes, jobs: dict[int, int]) -> None:
    """One command of the agent."""
    verb, _, rest = message.partition(b" ")
    if verb == b"run":
        job, argv = marshal.loads(rest)
        try:
            jobs[start(plan, control, job, argv)] = job
        except StageError as error:
            tell(control, f"failed {job} {error.text}")
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
