"""What runs replicas on a node: the ports that processes (`process_runtime.py`) and containers (`docker/`) fill.

A runtime prepares a replica once, then starts it any number of times; each start is a `Program`, from its first
process to the end of its last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from easel_agent.model import Listening, Refusal
from easel_contracts.spec import GitSource, RunSpec

if TYPE_CHECKING:
    from easel_agent.replica import Replica


class Login(Struct, frozen=True, kw_only=True):
    """For a git repository."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "Login(…)"


class RevisionSecrets(Struct, frozen=True, kw_only=True):
    """What control keeps of a revision. Never logged."""

    env: dict[str, str] = {}
    sidecars: tuple[dict[str, str], ...] = ()
    registry_login: str = ""
    """`user:password` in base64, as EAS's dockerAuth."""
    logins: dict[int, Login] = {}
    """By the mount's number."""

    def __repr__(self) -> str:
        return "RevisionSecrets(…)"


class Secrets(Protocol):
    """Where secrets come from (control)."""

    async def of_revision(self, workspace: str, service: str, revision: int) -> RevisionSecrets:
        """Raises EaselError when control does not answer."""


class Asked:
    """A revision's secrets, asked of control when they are needed for the first time."""

    def __init__(self, secrets: Secrets, run: RunSpec) -> None:
        self._secrets, self._run = secrets, run
        self._found: RevisionSecrets | None = None

    async def all(self) -> RevisionSecrets:
        """Raises EaselError when control does not answer."""
        if self._found is None:
            run = self._run
            self._found = await self._secrets.of_revision(run.workspace, run.service, run.revision.number)
        return self._found

    async def environment(self) -> RevisionSecrets:
        """Nobody is asked where the revision has none of its own."""
        revision = self._run.revision
        of_git = any(isinstance(mount.source, GitSource) and mount.source.login for mount in revision.mounts)
        if revision.env_names or of_git or any(sidecar.env_names for sidecar in revision.sidecars):
            return await self.all()
        return RevisionSecrets()

    async def registry_login(self) -> str:
        """Only a pull needs it."""
        return (await self.all()).registry_login


class CannotPrepare(Exception):
    """The replica cannot be started on this node as it is."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Program(Protocol):
    """One run of a replica."""

    pid: int | None
    """Of its main process, as the agent sees it."""

    @property
    def container(self) -> str:
        """Id of its main container; empty where it has none."""

    mount_s: float
    """How long its file system took."""
    started: asyncio.Future[None]
    exited: asyncio.Future[int]
    """Exit code as subprocess gives it; set when the run is over, of whatever part of it ended first."""
    gone: asyncio.Future[None]
    """Set when nothing of the run is left."""

    def terminate(self) -> None:
        """Ask the program to end, once."""

    def kill(self) -> None:
        """End everything of it; `gone` tells when."""

    async def probe(self, argv: Sequence[str], timeout_s: float) -> int | None:
        """Run a command beside the program, with its rights; its exit code, None when it took too long.

        Raises Unavailable where it cannot be asked now, which says nothing of the program.
        """

    def listening(self) -> list[Listening] | None:
        """Its own sockets that accept connections; None: they cannot be looked at, and the port is nobody else's."""

    def refusal(self) -> Refusal | None:
        """After its end: why another run would end in the same way at once; None: it may go better."""

    def complaint(self) -> str | None:
        """Why it says itself that it is not well; None: it does not."""


class Uses(Struct, frozen=True, kw_only=True):
    """What a replica uses of the agent's caches, which is not pruned meanwhile."""

    venv: str = ""
    """Key of its Python environment, or of a container's installed packages."""
    archives: tuple[str, ...] = ()
    """Uploaded code."""
    held: tuple[str, ...] = ()
    """Fetched sources."""


class Prepared(Protocol):
    """Ready to be started, any number of times."""

    @property
    def uses(self) -> Uses:
        """Of the caches."""


class Runtime(Protocol):
    """Prepares, starts and clears away."""

    isolation: str
    """How replicas are kept apart, as the API says it."""
    limits: str

    async def prepare(self, replica: Replica) -> Prepared:
        """Everything a start needs; sets the replica's `ip` and `port`. May be called again after it raised.

        Raises CannotPrepare with the cause, or Unavailable while somebody it needs does not answer.
        """

    async def start(self, replica: Replica, prepared: Prepared) -> Program:
        """Start a run; sets the replica's `group` and `program` as soon as there is something to clear away.

        Raises CannotPrepare, or Unavailable.
        """

    async def release(self, replica: Replica) -> None:
        """Give back what `prepare` took: the replica has ended."""

    async def close(self) -> None:
        """The agent ends, and so have its replicas."""


class Survivor(Struct, kw_only=True):
    """A replica that ran on while no agent was there."""

    run: RunSpec
    ip: str
    port: int
    uses: Uses
    attach: Callable[[Replica], Awaitable[None]]
    """Sets the replica's `program` and `group`."""


class Node(Struct, kw_only=True):
    """What all replicas of this node share."""

    home: Path
    node_id: str
    run_id: str
    network: str
    processes_per_replica: int
    startup_limit_s: float
