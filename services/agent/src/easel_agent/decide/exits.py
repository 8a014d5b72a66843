"""Decides what the end of a program is called and says it in a sentence. Log lines stay out of the sentence."""

from __future__ import annotations

import signal
from errno import EACCES, ENOSPC, EPERM

from msgspec import Struct

from easel_agent.model import Exit, Killed, Refusal

HINTS = {
    1: "the log's last lines usually say why",
    2: "often wrong arguments: check the command",
    126: "the command was found but may not be executed",
    127: "a command in the script was not found",
}


class ExitFacts(Struct, frozen=True, kw_only=True):
    """Everything known about the end of one run."""

    exit: Exit
    limit_mib: int
    killed: Killed | None = None
    """Set when the agent ended it."""
    out_of_memory: bool = False
    """The kernel killed a process of the replica for memory in this run."""
    peak_mib: float | None = None
    failures_in_row: int = 1
    crash_loop: bool = False
    delay_s: float = 0.0


def explain(facts: ExitFacts) -> Refusal:
    """Cause and sentence for the end of a run that will be followed by another in `delay_s`."""
    base = _base(facts)
    again = f" Started again in {facts.delay_s:g} s."
    if facts.crash_loop and base.cause in ("exit", "probe"):
        message = f"Crash loop: {facts.failures_in_row} failures in a row. {base.message}{again}"
        return Refusal(cause="crash_loop", message=message)
    return Refusal(cause=base.cause, message=base.message + again)


def ending(code: int) -> str:
    """`exited with code 3` or `was ended by signal SIGSEGV`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"was ended by signal {name}"


def _base(facts: ExitFacts) -> Refusal:
    killed, ran = facts.killed, f"after {facts.exit.ran_s:.1f} s"
    if facts.out_of_memory or (killed is not None and killed.reason == "memory"):
        peak = min(facts.peak_mib, facts.limit_mib) if facts.out_of_memory and facts.peak_mib else facts.peak_mib
        used = f"used {peak:.0f} MiB of {facts.limit_mib}" if peak else f"passed {facts.limit_mib} MiB"
        return Refusal(cause="oom", message=f"Out of memory {ran}: {used}; raise metadata.memory (MiB).")
    if killed is not None:
        return Refusal(
            cause="probe", message=f"Ended by Easel {ran}: the {killed.reason} probe failed ({killed.detail})."
        )
    sentence = f"The program {ending(facts.exit.code)} {ran}"
    if facts.exit.code == 0:
        return Refusal(cause="exit", message=f"{sentence}: a server must keep running in the foreground.")
    hint = HINTS.get(facts.exit.code)
    return Refusal(cause="exit", message=f"{sentence}: {hint}." if hint else f"{sentence}.")


def explain_start(stage: str, errno: int, text: str, argv: tuple[str, ...]) -> Refusal:
    """Why the program could not be started at all (see launch.py's `error`)."""
    name = argv[0] if argv else ""
    if stage == "command":
        if errno == 2:
            message = f"Command not found: {name!r}. Give a path inside a mount, or a program on the replica's PATH."
        elif errno == 13:
            message = f"Command may not be executed: {name!r} (permission denied). Is it executable (chmod +x)?"
        elif errno == 8:
            message = (
                f"Command {name!r} is neither a program nor starts with `#!`. Name its interpreter in the command."
            )
        else:
            message = f"Command {name!r} could not be started: {text}."
        return Refusal(cause="command", message=message)
    if stage == "mount":
        return Refusal(cause="mount", message=f"The replica's file system could not be made: {text}.")
    if stage == "cwd":
        return Refusal(cause="command", message=f"The working directory cannot be entered: {text}.")
    return Refusal(cause="internal", message=f"The replica could not be started ({stage}): {text}.")


def explain_trial(stage: str, errno: int, text: str, *, user_ns: bool) -> str:
    """Why a kind of isolation does not work on this machine, in words where the kernel's own say too little."""
    if user_ns and stage in ("separate", "mount"):
        if errno == ENOSPC:
            return f"{text}: no user namespace can be made, see the sysctl user.max_user_namespaces"
        if errno in (EPERM, EACCES):
            return (
                f"{text}: user namespaces are kept from ordinary users, by the sysctl "
                "kernel.unprivileged_userns_clone, by AppArmor or by a container's seccomp filter"
            )
    return f"{stage}: {text}"
