"""Jobs of a replica, its program and its exec probes: started with its rights and no other. Part of launch.py."""

from __future__ import annotations

import errno
import os
import resource
import signal

from easel_agent.launch_kernel import (
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    StageError,
    call,
    libc,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from easel_agent.launch_kernel import Plan


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
    call("rights", "no_new_privs", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if not plan["pid_ns"]:  # after the change of user, which clears it
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
