"""What a revision of a service runs, after admission: normalised, units in the names, no secrets.

`easel_control.decide.admit` makes these from a service.json; everyone else only reads them.
Environment values and the token are not here: they stay with control (DESIGN: facts never carry secrets).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Resources(Struct, frozen=True, kw_only=True):
    """What one replica reserves on its node."""

    cpu: float
    """Cores."""
    memory_mib: int
    gpu: int = 0


class HttpCheck(Struct, frozen=True, kw_only=True, tag="http_get"):
    """Passes when the answer's status is 200 to 399."""

    path: str = "/"
    port: int | None = None
    """None: the replica's own port."""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class TcpCheck(Struct, frozen=True, kw_only=True, tag="tcp_socket"):
    """Passes when the port accepts a connection."""

    port: int | None = None


class ExecCheck(Struct, frozen=True, kw_only=True, tag="exec"):
    """Passes when the command exits with 0; it runs with the replica's rights and environment."""

    command: tuple[str, ...]


class Probe(Struct, frozen=True, kw_only=True):
    """A check and how often it is made. Meanings and defaults as in Kubernetes."""

    check: HttpCheck | TcpCheck | ExecCheck
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3


class Mount(Struct, frozen=True, kw_only=True):
    """A directory or file that a replica sees at `mount_path`."""

    mount_path: str
    host_path: str | None = None
    """A path on the node; exclusive with `code_digest`."""
    code_digest: str | None = None
    """An uploaded archive (`sha256:<hex>`), unpacked by the agent."""
    read_only: bool = True


class Autoscaling(Struct, frozen=True, kw_only=True):
    """The spec's autoscaler section. Windows in seconds; thresholds are per replica."""

    min: int
    max: int
    targets: tuple[tuple[str, float], ...]
    """(metric, threshold); metric is `qps` or `concurrency`."""
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0


class Traffic(Struct, frozen=True, kw_only=True):
    """How requests to the service are treated."""

    keepalive_ms: int = 600_000
    """Longest time to the first byte of the answer, then 408."""
    retry: Literal["safe", "pre_send", "off"] = "pre_send"
    """DESIGN 4b.9: what a POST without Idempotency-Key allows."""
    retry_body_mib: int = 1


class Lifecycle(Struct, frozen=True, kw_only=True):
    """How a replica ends."""

    termination_grace_s: float = 30.0
    enable_sigterm: bool = False


class SourceDigest(Struct, frozen=True, kw_only=True):
    """What a source of a revision contained when it was admitted."""

    source: str
    """Path in the service.json, e.g. `storage[0]`."""
    digest: str
    """`sha256:...`, or `mutable` when it can change under a revision."""


class RevisionSpec(Struct, frozen=True, kw_only=True):
    """One immutable revision. Everything whose change makes a new revision."""

    number: int
    resources: Resources
    port: int
    """The port the program is written for; replicas get their own by $PORT (DESIGN 4b.5)."""
    command: str | None = None
    """One command without shell features; exclusive with `script`."""
    script: str | None = None
    """A shell script."""
    env_names: tuple[str, ...] = ()
    python_requirements: tuple[str, ...] = ()
    python_requirements_path: str | None = None
    mounts: tuple[Mount, ...] = ()
    startup: Probe | None = None
    liveness: Probe | None = None
    readiness: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    traffic: Traffic = Traffic()
    sources: tuple[SourceDigest, ...] = ()
    restart_nonce: int = 0
    """Raised by Restart: the same content, new replicas."""


class RunSpec(Struct, frozen=True, kw_only=True):
    """What the scheduler tells the agent to run."""

    workspace: str
    service: str
    replica: str
    revision: RevisionSpec
    traceparent: str | None = None
