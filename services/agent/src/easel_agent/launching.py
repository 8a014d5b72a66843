"""Gets everything a replica needs before its program can be started: port, environment, code, Python, mounts, plan."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING

from msgspec import Struct

from easel_agent.decide import mounts as mount_rules
from easel_agent.decide.environment import Surroundings, command_line, environment
from easel_agent.decide.layout import Target
from easel_agent.environments import BuildFailed, Environments
from easel_agent.fetching import Fetching, first_directory, requirements, resolved
from easel_agent.model import Refusal
from easel_agent.port_ledger import PortLedger
from easel_agent.runtime import Asked, CannotPrepare, Node, Secrets, Uses
from easel_agent.sandbox import Plan, Sandbox, python_targets
from easel_contracts.spec import Mount, NfsSource, RunSpec, ScratchSource

if TYPE_CHECKING:
    from easel_agent.replica import Replica


class PreparedProcess(Struct, frozen=True, kw_only=True):
    """See runtime.Prepared."""

    plan: Plan
    uses: Uses


class Preparer:
    """Makes a replica's plan. One for the whole agent."""

    def __init__(self, *, node: Node, address: str, ledger: PortLedger, sandbox: Sandbox, environments: Environments,
                 fetching: Fetching, secrets: Secrets, inherited: dict[str, str]) -> None:  # fmt: skip
        self._address = address
        self._node, self._ledger, self._sandbox = node, ledger, sandbox
        self._environments, self._fetching, self._secrets, self._inherited = environments, fetching, secrets, inherited
        self._first_port = ledger.first
        self._shell = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"

    async def prepare(self, replica: Replica) -> PreparedProcess:
        """Raises CannotPrepare with the cause, or EaselError when control does not answer."""
        run = replica.spec
        self._check_mounts(run)
        replica.ip = self._address
        if not replica.port:  # else this is another attempt
            replica.port = self._ledger.reserve(run.replica)
        replica.uid = self._sandbox.uid_for(replica.port - self._first_port)
        secrets = await Asked(self._secrets, run).environment()
        self._make_directories(replica)
        files = await self._fetching.fetch(run, replica.directory, secrets.logins, replica.log.event, None,
                                           uid=replica.uid)  # fmt: skip
        replica.pins = dict(files.pins)
        venv = await self._venv(replica, requirements(run, files.paths))
        around = self._surroundings(replica, venv)
        env = environment(run, secrets.env, around)
        argv = command_line(run, env, self._shell)
        if isinstance(argv, Refusal):
            raise CannotPrepare(argv)
        plan = self._sandbox.plan(
            argv=argv, env=env, root=replica.directory / "root",
            cwd=first_directory(run, files.paths) or str(replica.directory / "home"),
            uid=replica.uid, tmp=replica.directory / "tmp", targets=self._targets(replica, files.paths, venv),
            memory_mib=run.revision.resources.memory_mib,
        )  # fmt: skip
        uses = Uses(venv=venv.name if venv else "", archives=files.archives, held=files.held)
        return PreparedProcess(plan=plan, uses=uses)

    def release(self, replica: Replica) -> None:
        """Give back what `prepare` took."""
        if replica.port:
            self._ledger.release(replica.port)

    def _check_mounts(self, run: RunSpec) -> None:
        revision = run.revision
        why = mount_rules.refusal(resolved(revision.mounts), self._sandbox.hidden) or _only_containers(revision.mounts)
        for mount in revision.mounts:
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

    async def _venv(self, replica: Replica, lines: str) -> Path | None:
        if not lines:
            return None
        try:
            return await self._environments.get(lines, replica.log.event)
        except BuildFailed as error:
            replica.log.event(f"requirements: {error}")
            last = " ".join(line.strip(" ╰─▶×│├") for line in str(error).splitlines()[-3:])[:400]
            message = f"The Python requirements cannot be installed: {last}"
            raise CannotPrepare(Refusal(cause="requirements", message=message)) from error

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
            port=replica.port, address=self._address, node=self._node.node_id,
            home=str(replica.directory / "home"), tmp=tmp,
            python_bin=str(venv / "bin") if venv else str(self._environments.shims),
            venv=str(venv) if venv else None, inherited=self._inherited,
        )  # fmt: skip

    def _targets(self, replica: Replica, sources: Mapping[str, Path], venv: Path | None) -> list[Target]:
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


def _only_containers(mounts: Sequence[Mount]) -> str | None:
    for mount in mounts:
        if isinstance(mount.source, NfsSource):
            return f"{mount.mount_path}: NFS is mounted by a Docker engine only; give an image."
        if isinstance(mount.source, ScratchSource) and mount.source.medium == "memory":
            return f"{mount.mount_path}: scratch memory needs an image; a process has /dev/shm."
    return None
