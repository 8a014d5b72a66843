"""Finds the best isolation that works here, by starting a small program in each kind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from easel_agent.decide.exits import explain_trial
from easel_agent.decide.layout import Target
from easel_agent.environments import base_python, run_to_end
from easel_agent.model import Isolation
from easel_agent.processes import Children, StartFailed
from easel_agent.sandbox import FIRST_UID, Sandbox, kinds, python_targets

TRIAL_UID = FIRST_UID + 20_000
TRIAL_S = 10.0


class NoIsolation(Exception):
    """Not even a plain program could be started; the text says why."""


async def find(home: Path, hidden: Sequence[Path], children: Children, *, root: bool) -> Isolation:
    """The best kind that works, with the reasons of those that do not in its sentences."""
    refused: list[str] = []
    for kind in kinds(root):
        why = await _try(kind, home, hidden, children)
        if why is None:
            return _said(kind, refused)
        refused.append(why)
    raise NoIsolation("; ".join(refused))


async def _try(kind: Isolation, home: Path, hidden: Sequence[Path], children: Children) -> str | None:
    work = home / "builds" / "trial"
    shutil.rmtree(work, ignore_errors=True)
    for path in (work / "root", work / "tmp", work / "home"):
        path.mkdir(parents=True, mode=0o755)
    uid = TRIAL_UID if kind.own_uid else None
    if uid is not None:
        os.chown(work / "home", uid, uid)
    sandbox = Sandbox(kind, hidden)
    python = base_python()
    where = str(work / "home")
    plan = sandbox.plan(
        argv=[python, "-I", "-S", "-c", "open('trial', 'w').close()"], env={}, cwd=where, root=work / "root", uid=uid,
        tmp=work / "tmp", memory_mib=64,
        targets=[Target(path=where, source=where, writable=True), *python_targets(python)],
    )  # fmt: skip
    try:
        code, output = await run_to_end(plan, children, TRIAL_S)
    except StartFailed as error:
        return explain_trial(error.stage, error.errno, error.text, user_ns=kind.user_ns)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if code == 0:
        return None
    lines = output.strip().splitlines()
    return lines[-1] if lines else f"a trial program ended with {code}"


def _said(kind: Isolation, refused: list[str]) -> Isolation:
    if not refused:
        return kind
    why = "; ".join(refused)
    sentence = kind.sentence if kind.own_uid or kind.mount_ns else f"{kind.sentence.split(' (')[0]} ({why})"
    if not sentence.startswith(("uid", "not isolated: ")):
        sentence = f"not isolated: {why}"
    return msgspec.structs.replace(kind, sentence=sentence, mounts_refused="" if kind.mount_ns else why)
