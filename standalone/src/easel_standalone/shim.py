"""Becomes another program, tied to its parent's life: `python -I -S shim.py OPTIONS -- COMMAND...`.

Runs alone, before anything of Easel is imported, with the standard library only; keeps its pid through exec.
    --parent PID --death-signal N    the kernel sends N when the thread that forked us ends (Linux prctl(2))
    --as-nobody                      uid and gid 65534 in a user namespace of our own: for PostgreSQL, which refuses
                                     root; files stay the caller's
    --user UID:GID                   this user instead, for real
Never starts the command without the tie: a parent that is already gone means exit.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NOBODY = 65534


def main(arguments: list[str]) -> None:
    """Reads the options, applies them, becomes the command."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    if "--as-nobody" in options:
        _enter_user_namespace()
    if "--user" in options:
        uid, gid = (int(part) for part in options[options.index("--user") + 1].split(":"))
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    # After any change of identity, since the kernel forgets the signal then.
    if "--death-signal" in options:
        _die_with(int(options[options.index("--parent") + 1]), int(options[options.index("--death-signal") + 1]))
    os.execvp(command[0], command)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _die_with(parent: int, signal: int) -> None:
    _checked(_libc().prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")


def _enter_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _checked(_libc().unshare(CLONE_NEWUSER), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


if __name__ == "__main__":
    main(sys.argv[1:])
