"""Frozen data that the agent's parts hand each other. No behaviour, no I/O."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from easel_contracts.runtime import FailureCause, RuntimePhase


class Isolation(Struct, frozen=True, kw_only=True):
    """How replicas are kept apart on this machine. Found by trying, at the agent's start."""

    user_ns: bool
    mount_ns: bool
    pid_ns: bool
    own_uid: bool
    """A separate uid per replica; only possible for root."""
    sentence: str
    """What the API says: `uid+mounts`, `uid`, or `not isolated: <why>`."""
    mounts_refused: str = ""
    """Why nothing can be mounted; empty when it can."""


class Refusal(Struct, frozen=True, kw_only=True):
    """Why a replica cannot be started, or was ended."""

    cause: FailureCause
    message: str


class Exit(Struct, frozen=True, kw_only=True):
    """How a program ended."""

    code: int
    """As subprocess gives it: negative is minus the signal's number."""
    ran_s: float
    was_ready: bool


class Killed(Struct, frozen=True, kw_only=True):
    """Why the agent itself ended a program."""

    reason: Literal["liveness", "startup", "memory"]
    detail: str


class Stopping(Struct, frozen=True, kw_only=True):
    """How a replica is to be ended."""

    grace_s: float
    sigterm: bool
    idle: bool


class Restarting(Struct, frozen=True, kw_only=True):
    """A replica's program is to be ended and started anew in its place."""

    number: int
    """Rises with each that is asked for; one not above the newest known changes nothing."""
    how: Stopping


class Listening(Struct, frozen=True, kw_only=True, order=True):
    """A TCP socket on which a process accepts connections."""

    ip: str
    port: int


class Usage(Struct, frozen=True, kw_only=True):
    """What a replica or a node uses now."""

    cpu_s: float
    """CPU time since its start."""
    memory_mib: float


class Progress(Struct, frozen=True, kw_only=True):
    """What a replica's report says of its present run."""

    phase: RuntimePhase
    ready: bool = False
    pid: int | None = None
    exit_code: int | None = None
    cause: FailureCause = "none"
    message: str = ""
    log_tail: tuple[str, ...] = ()
    phase_s: dict[str, float] = {}
