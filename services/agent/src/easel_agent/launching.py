"""Gets everything a replica needs before its program can be started: port, environment, code, Python, mounts, plan."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from posixpath import join, normpath
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from easel_agent.archives import BadArchive, CodeStore
from easel_agent.decide import mounts as mount_rules
from easel_agent.decide.environment import Surroundings, command_line, environment
from easel_agent.decide.layout import Target, within
from easel_agent.environments import BuildFailed, Environments
from easel_agent.limits import Limits
from easel_agent.model import Refusal
from easel_agent.port_ledger import PortLedger
from easel_agent.processes import Children
from easel_agent.sandbox import Plan, Sandbox, python_targets
from easel_contracts.errors import EaselError, Unavailable
from easel_contracts.spec import Mount, RunSpec

if TYPE_CHECKING:
    from easel_agent.replica import Replica


class Secrets(Protocol):
    """Where the values of environments come from (control)."""

    async def environment(self, workspace: str, service: str, revision: int) -> dict[str, str]:
        """Raises EaselError when control does not answer."""


class Node(Struct, kw_only=True):
    """What all replicas of this node share."""

    home: Path
    node_id: str
    run_id: str
    address: str
    network: str
    isolation: str
    limits: Limits
    children: Children
    processes_per_replica: int
    startup_limit_s: float
    started: Callable[[Replica], None]
    """Told when a program runs, so that its pid is remembered."""


class Prepared(Struct, frozen=True, kw_only=True):
    """Ready to be started, any number of times."""

    plan: Plan
    venv: str | None
    """Key of the Python environment."""
    archives: tuple[str, ...]


class CannotPrepare(Exception):
    """The replica cannot be started on this node as it is."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Preparer:
    """Makes a replica's plan. One for the whole agent."""

    def __init__(self, *, node: Node, ledger: PortLedger, sandbox: Sandbox, environments: Environments,
                 code: CodeStore, secrets: Secrets, inherited: dict[str, str]) -> None:  # fmt: skip
        self._node, self._ledger, self._sandbox = node, ledger, sandbox
        self._environments, self._code, self._secrets, self._inherited = environments, code, secrets, inherited
        self._first_port = ledger.first
        self._shell = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"

    async def prepare(self, replica: Replica) -> Prepared:
        """Raises CannotPrepare with the cause, or EaselError when control does not answer."""
        run = replica.spec
        self._check_mounts(run)
        if not replica.port:  # else this is another attempt
            replica.port = self._ledger.reserve(run.replica)
        replica.uid = self._sandbox.uid_for(replica.port - self._first_port)
        code, user = await asyncio.gather(self._archives(run), self._environment(run))
        venv = await self._venv(replica, code)
        self._make_directories(replica)
        sources = await asyncio.to_thread(self._sources, replica, code)
        around = self._surroundings(replica, venv)
        env = environment(run, user, around)
        argv = command_line(run, env, self._shell)
        if isinstance(argv, Refusal):
            raise CannotPrepare(argv)
        plan = self._sandbox.plan(
            argv=argv, env=env, cwd=self._working_directory(replica, code), root=replica.directory / "root",
            uid=replica.uid, tmp=replica.directory / "tmp", targets=self._targets(replica, sources, venv),
            memory_mib=run.revision.resources.memory_mib,
        )  # fmt: skip
        return Prepared(
            plan=plan, venv=venv.name if venv else None, archives=tuple(path.name for path in code.values())
        )

    def release(self, replica: Replica) -> None:
        """Give back what `prepare` took."""
        if replica.port:
            self._ledger.release(replica.port)

    def _check_mounts(self, run: RunSpec) -> None:
        revision = run.revision
        why = mount_rules.refusal(revision.mounts, self._sandbox.hidden)
        for mount in revision.mounts:
            if why is None and mount.host_path is not None and not os.path.exists(mount.host_path):
                why = f"{mount.host_path} (for {mount.mount_path}) does not exist on node {self._node.node_id}."
            if (
                why is None
                and not self._sandbox.isolation.mount_ns
                and normpath(mount.host_path or "") != normpath(mount.mount_path)
            ):
                why = (f"{mount.mount_path} cannot be mounted on node {self._node.node_id}: "
                       f"{self._sandbox.isolation.mounts_refused}. A mount works here only where the path on the node "
                       "is the mount_path itself.")  # fmt: skip
        if why is not None:
            raise CannotPrepare(Refusal(cause="mount", message=why))

    async def _archives(self, run: RunSpec) -> dict[str, Path]:
        """Digest → directory."""
        digests = sorted({mount.code_digest for mount in run.revision.mounts if mount.code_digest})
        try:
            found = [await self._code.get(digest) for digest in digests]
        except BadArchive as error:
            raise CannotPrepare(Refusal(cause="code", message=f"The code cannot be used: {error}.")) from error
        except Unavailable:
            raise
        except EaselError as error:
            raise CannotPrepare(Refusal(cause="code", message=f"The code cannot be fetched: {error}.")) from error
        return dict(zip(digests, found, strict=True))

    async def _environment(self, run: RunSpec) -> dict[str, str]:
        if not run.revision.env_names:
            return {}
        return await self._secrets.environment(run.workspace, run.service, run.revision.number)

    async def _venv(self, replica: Replica, code: dict[str, Path]) -> Path | None:
        revision = replica.spec.revision
        lines = list(revision.python_requirements)
        if revision.python_requirements_path:
            lines.append(self._requirements_file(replica.spec, code))
        if not lines:
            return None
        try:
            return await self._environments.get("\n".join(lines) + "\n", replica.log.event)
        except BuildFailed as error:
            replica.log.event(f"requirements: {error}")
            last = " ".join(line.strip(" ╰─▶×│├") for line in str(error).splitlines()[-3:])[:400]
            message = f"The Python requirements cannot be installed: {last}"
            raise CannotPrepare(Refusal(cause="requirements", message=message)) from error

    def _requirements_file(self, run: RunSpec, code: dict[str, Path]) -> str:
        """The text of the file, which is named by its path as the replica sees it."""
        wanted = normpath(join(self._first_directory(run, code) or "/", run.revision.python_requirements_path or ""))
        real = wanted
        for mount in run.revision.mounts:
            root = normpath(mount.mount_path)
            if within(wanted, root):
                real = str(_source(mount, code)) + wanted[len(root) :]
        try:
            return Path(real).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            message = f"prepare.pythonRequirementsPath: {wanted} cannot be read ({reason})."
            raise CannotPrepare(Refusal(cause="requirements", message=message)) from error

    def _first_directory(self, run: RunSpec, code: dict[str, Path]) -> str | None:
        """Where the first mounted directory is seen: replicas start in it."""
        mounts = run.revision.mounts
        return next((normpath(mount.mount_path) for mount in mounts if _source(mount, code).is_dir()), None)

    def _working_directory(self, replica: Replica, code: dict[str, Path]) -> str:
        return self._first_directory(replica.spec, code) or str(replica.directory / "home")

    def _make_directories(self, replica: Replica) -> None:
        replica.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        (replica.directory / "root").mkdir(exist_ok=True, mode=0o700)
        for name in ("home", "tmp"):
            path = replica.directory / name
            path.mkdir(exist_ok=True, mode=0o700)
            if replica.uid is not None:
                os.chown(path, replica.uid, replica.uid)

    def _surroundings(self, replica: Replica, venv: Path | None) -> Surroundings:
        tmp = "/tmp" if self._sandbox.isolation.mount_ns else str(replica.directory / "tmp")
        return Surroundings(
            port=replica.port, address=self._node.address, node=self._node.node_id,
            home=str(replica.directory / "home"), tmp=tmp,
            python_bin=str(venv / "bin") if venv else str(self._environments.shims),
            venv=str(venv) if venv else None, inherited=self._inherited,
        )  # fmt: skip

    def _sources(self, replica: Replica, code: dict[str, Path]) -> dict[str, Path]:
        """mount_path → what is mounted there. Code that may be written to is copied: the archive is shared."""
        found: dict[str, Path] = {}
        for number, mount in enumerate(replica.spec.revision.mounts):
            found[mount.mount_path] = source = _source(mount, code)
            if mount.code_digest and not mount.read_only:
                copy = replica.directory / f"code-{number}"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(source, copy, symlinks=True)
                _give(copy, replica.uid)
                found[mount.mount_path] = copy
        return found

    def _targets(self, replica: Replica, sources: dict[str, Path], venv: Path | None) -> list[Target]:
        home, shims = str(replica.directory / "home"), str(self._environments.shims)
        targets = [Target(path=home, source=home, writable=True), Target(path=shims, source=shims),
                   *python_targets(self._environments.python)]  # fmt: skip
        if venv is not None:
            targets.append(Target(path=str(venv), source=str(venv)))
        for mount in replica.spec.revision.mounts:
            source = str(sources[mount.mount_path])
            owner = os.stat(source).st_uid if mount.host_path is not None else None
            targets.append(Target(path=normpath(mount.mount_path), source=source, owner=owner,
                                  writable=not mount.read_only))  # fmt: skip
        return targets


def _source(mount: Mount, code: dict[str, Path]) -> Path:
    return Path(mount.host_path) if mount.host_path is not None else code[mount.code_digest or ""]


def _give(directory: Path, uid: int | None) -> None:
    if uid is not None:
        for parent, folders, files in os.walk(directory):
            for name in (".", *folders, *files):
                os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)
