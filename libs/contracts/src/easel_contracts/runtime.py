"""What an agent reports of its replicas."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from easel_contracts.spec import Runtime

RuntimePhase = Literal["fetching", "starting", "running", "backoff", "stopping", "stopped", "failed"]
"""fetching: code, environment · starting: process up, startup probe not passed yet · running: see `ready`
· backoff: exited, will be started again · stopped: ended as told · failed: will not be started again."""

FailureCause = Literal[
    "none", "exit", "oom", "crash_loop", "probe", "requirements", "mount", "code", "command", "wrong_port", "image",
    "internal",
]  # fmt: skip


class ReplicaReport(Struct, frozen=True, kw_only=True):
    """State of one replica on a node; `sequence` rises with each change."""

    replica: str
    service: str
    revision: int
    sequence: int
    agent_run_id: str
    phase: RuntimePhase
    ready: bool = False
    """The readiness probe passes (without one: the port accepts connections and is the replica's own)."""
    pid: int | None = None
    ip: str = ""
    port: int = 0
    network: str = ""
    restarts: int = 0
    exit_code: int | None = None
    cause: FailureCause = "none"
    message: str = ""
    """A sentence for people: what happened and what to change. Holds no log lines."""
    log_tail: tuple[str, ...] = ()
    """Last lines of output, for failures; never put in a fact."""
    phase_s: dict[str, float] = {}
    """Seconds spent: fetch, mount, start, probe."""
    keep_alive_s: float | None = None
    """How long the server keeps an idle connection; None: long enough, or not known."""
    restart_number: int = 0
    """Of the newest Restart command that was carried out."""
    at_unix_s: float = 0.0
    isolation: str = ""
    limits: str = ""
    runtime: Runtime = "process"
    pins: dict[str, str] = {}
    """What it runs, by RunSpec.pins' paths: known once everything is fetched. A digest that names no registry's image
    but the node's own copy begins with `local:`."""
    container: str = ""
    """Id of its main container in the node's engine."""
    adopted: bool = False
    """An earlier run of the agent started it, and it ran on without: `agent_run_id` is the present one's."""
