"""Decides a replica's command line and environment. The agent's own environment never reaches a replica by default."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from msgspec import Struct

from easel_agent.model import Refusal
from easel_contracts.spec import RunSpec

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Surroundings(Struct, frozen=True, kw_only=True):
    """What the node decides about a replica."""

    port: int
    address: str
    node: str
    home: str
    tmp: str
    python_bin: str
    """Directory whose `python` the replica gets."""
    venv: str | None
    inherited: dict[str, str]
    """Variables of the machine that are handed on (locale, time zone, certificates)."""


def environment(run: RunSpec, user: Mapping[str, str], around: Surroundings) -> dict[str, str]:
    """The whole environment. The user's values win, except over those that say who and where the replica is."""
    env = {
        "PATH": f"{around.python_bin}:{SYSTEM_PATH}", "HOME": around.home, "LANG": "C.UTF-8",
        "TMPDIR": around.tmp, "PYTHONUNBUFFERED": "1",
        # a server that honours it is reached through the gateway only, not around its token check
        "HOST": around.address,
    }  # fmt: skip
    env |= around.inherited
    if around.venv:
        env["VIRTUAL_ENV"] = around.venv
    env |= user
    return env | {"PORT": str(around.port)} | identity(run, ip=around.address, node=around.node)


def identity(run: RunSpec, *, ip: str, node: str) -> dict[str, str]:
    """Who and where a replica is, in EAS's variables and Easel's."""
    found = {
        "NAMESPACE": run.workspace, "POD_NAME": run.replica, "POD_IP": ip, "NODE_NAME": node,
        "SERVICE_NAME": run.service, "EASEL_REVISION": str(run.revision.number), "EASEL_REPLICA": run.replica,
        "EASEL_SERVICE": run.service,
    }  # fmt: skip
    return found | ({"TRACEPARENT": run.traceparent} if run.traceparent else {})


def command_line(run: RunSpec, env: Mapping[str, str], shell: str) -> tuple[str, ...] | Refusal:
    """What to execute: the command's words with $NAME and ${NAME} filled in, or the script in a shell."""
    if run.revision.script is not None:
        return (shell, "-c", run.revision.script)
    try:
        words = shlex.split(run.revision.command or "")
    except ValueError as error:
        return Refusal(cause="command", message=f"The command cannot be split into words: {error}.")
    if not words:
        return Refusal(cause="command", message="The revision has neither a command nor a script.")
    return tuple(expand(word, env) for word in words)


def expand(word: str, env: Mapping[str, str]) -> str:
    """Fill in $NAME and ${NAME}; names that are not in `env` stay as they are written."""
    return VARIABLE.sub(lambda match: env.get(match[1] or match[2], match[0]), word)
