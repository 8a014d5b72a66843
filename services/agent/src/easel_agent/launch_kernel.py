"""What launch.py asks of the kernel, and how it says that a step failed."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # importing typing costs each start four milliseconds
if TYPE_CHECKING:
    import socket
    from typing import Any

    Plan = dict[str, Any]
    """As sandbox.Plan.to_wire writes it."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38

libc = ctypes.CDLL(None, use_errno=True)


class StageError(Exception):
    """A step of the start failed; `stage` says which."""

    def __init__(self, stage: str, error: OSError, what: str) -> None:
        super().__init__(what)
        self.stage, self.errno, self.text = stage, error.errno or 0, f"{what}: {error.strerror or error}"


def call(stage: str, what: str, result: int) -> None:
    """Judge the result of a system call; raises StageError with the call's errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise StageError(stage, OSError(number, os.strerror(number)), what)


def write(path: str, text: str) -> None:
    """Write into a file that is there; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def tell(control: socket.socket, text: str) -> None:
    """Send a message to the agent."""
    try:
        control.send(text.encode()[:4096])
    except BrokenPipeError:
        return  # the agent is gone: the next read of the socket says so too
