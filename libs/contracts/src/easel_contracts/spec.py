"""What a revision of a service runs, after admission: normalised, units in the names, no secrets.

`easel_control.decide.admit` makes these from a service.json; everyone else only reads them.
Environment values and the token are not here: they stay with control (DESIGN: facts never carry secrets).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Runtime = Literal["process", "docker"]
"""What runs a replica on a node: the agent itself, or a Docker engine."""


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


class GitSource(Struct, frozen=True, kw_only=True, tag="git"):
    """A repository, cloned when the revision's first replica starts; the commit found then is the revision's."""

    repo: str
    branch: str | None = None
    """None: the repository's own default."""
    commit: str | None = None
    """Given by the user; else the tip of the branch."""
    login: bool = False
    """User name and password are kept by control."""


class ImageSource(Struct, frozen=True, kw_only=True, tag="image"):
    """Files copied out of an image; nothing of it runs."""

    image: str
    path: str = "/"


class ObjectSource(Struct, frozen=True, kw_only=True, tag="object"):
    """Everything below a prefix of an object store, copied to the node when a replica starts."""

    url: str
    """`oss://bucket/prefix/` or another that fsspec knows."""
    endpoint: str | None = None


class NfsSource(Struct, frozen=True, kw_only=True, tag="nfs"):
    """A directory of an NFS server, mounted by the engine."""

    server: str
    path: str = "/"


class ScratchSource(Struct, frozen=True, kw_only=True, tag="empty_dir"):
    """An empty directory of the replica's own, gone with it."""

    medium: Literal["disk", "memory"] = "disk"
    size_mib: int | None = None
    """None: only bounded by the disk, or by the replica's memory."""


Source = GitSource | ImageSource | ObjectSource | NfsSource | ScratchSource


class Mount(Struct, frozen=True, kw_only=True):
    """A directory or file that a replica sees at `mount_path`. It has one of `host_path`, `code_digest`, `source`."""

    mount_path: str
    host_path: str | None = None
    """A path on the node."""
    code_digest: str | None = None
    """An uploaded archive (`sha256:<hex>`), unpacked by the agent."""
    source: Source | None = None
    """Anything else, fetched or made by the agent."""
    read_only: bool = True


class Security(Struct, frozen=True, kw_only=True):
    """What a container may do. New privileges are never possible, and most capabilities are always dropped."""

    read_only_root: bool = False
    """The image's files cannot be changed; /tmp is a scratch directory then."""
    user: str | None = None
    """`uid` or `uid:gid`; None: the image's own."""
    non_root: bool = False
    """A container that would run as root is refused."""


class Image(Struct, frozen=True, kw_only=True):
    """What a container is made from."""

    reference: str
    """As written: `registry.example.com:5000/team/ocr:1.2`."""
    pull: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """As in Kubernetes. The digest found by the revision's first replica is the revision's, whatever the tag names."""
    pull_timeout_s: float = 1800.0
    security: Security = Security()


class Sidecar(Struct, frozen=True, kw_only=True):
    """A further container of a replica: it shares the network (localhost), mounts and /dev/shm with the main one."""

    image: Image
    command: str | None = None
    script: str | None = None
    args: tuple[str, ...] = ()
    port: int | None = None
    env_names: tuple[str, ...] = ()
    cpu: float | None = None
    """Its own limit; None: the replica's."""
    memory_mib: int | None = None


class Autoscaling(Struct, frozen=True, kw_only=True):
    """The spec's autoscaler section. Windows in seconds; thresholds are per replica."""

    min: int
    max: int
    targets: tuple[tuple[str, float], ...]
    """(metric, threshold); metric is `qps` or `concurrency`."""
    scale_up_window_s: float = 0.0
    scale_down_window_s: float = 300.0
    zero_grace_s: float = 600.0
    """With `min` 0: without a request for so long, no replica is kept."""
    activation_replicas: int = 1
    """Replicas made by the first request at zero."""
    intercept_traffic: bool = True
    """Requests that come while there is no replica are held; false: they are answered 503 and only wake the service."""


class Traffic(Struct, frozen=True, kw_only=True):
    """How requests to the service are treated."""

    keepalive_ms: int = 600_000
    """Longest time to the first byte of the answer, then 408."""
    retry: Literal["safe", "pre_send", "off"] = "pre_send"
    """DESIGN 4b.9: what a POST without Idempotency-Key allows."""
    retry_body_mib: int = 1
    hold_max_requests: int = 4096
    """Requests that may wait at a time while no replica is ready; more are answered 503."""
    grpc: bool = False
    """gRPC calls go to the replicas, over HTTP/2 (metadata.enable_grpc); everything else goes over HTTP/1.1."""


class GatewayPolicy(Struct, frozen=True, kw_only=True):
    """What the gateway lets through to a service or a group, and how it is reached. No part of a revision: a change
    replaces no replica. 0: no limit."""

    rate_limit_qps: int = 0
    """Requests per second of the whole, over all Envoys; more are answered 429."""
    concurrency_limit: int = 0
    """Requests of the whole that are being answered or wait, over all Envoys; more are answered 429."""
    replica_rate_limit_qps: int = 0
    """Requests per second and replica that takes traffic; more are answered 429. Not of a group."""
    worker_threads: int = 0
    """Requests a replica answers at a time; further ones wait at the gateway. Not of a group."""
    max_queue_size: int = 64
    """Requests that may wait per replica where `worker_threads` is set; more are answered 450. Not of a group."""
    web: bool = False
    """A web application: reached by host name and with a browser's session too. Not of a group."""


class Match(Struct, frozen=True, kw_only=True):
    """Requests told by what they carry."""

    kind: Literal["header", "cookie", "query"]
    name: str
    value: str
    """The exact value."""


class Sticky(Struct, frozen=True, kw_only=True):
    """What keeps a caller on one side of a split: requests that are equal in it go the same way."""

    kind: Literal["header", "cookie", "query"]
    name: str


class Split(Struct, frozen=True, kw_only=True):
    """How requests are shared between what is stable and a candidate, while a canary is on."""

    weight_permille: int
    """Of the requests that `match` does not name, how many in a thousand go to the candidate."""
    match: Match | None = None
    """Requests that go to the candidate whatever the weight."""
    sticky: Sticky | None = None
    """None: each request is decided by itself."""
    subject: str = ""
    """Id of the canary under which every request is logged to the monitor; empty: none is."""


CANDIDATE = "@candidate"
"""As a target of mirroring: the service's own new revision while a rollout is on."""


class Comparison(Struct, frozen=True, kw_only=True):
    """How answers to mirrored requests are compared."""

    samples_per_s: float = 5.0
    """At most so many copies a second are replayed; further ones are counted as not compared."""
    twice_percent: float = 20.0
    """Share of the samples that go to the stable side twice, to know how much it differs from itself."""
    body_kib: int = 256
    """Requests and answers with larger bodies are counted as not compared."""
    tolerance: float = 0.0
    """Relative difference up to which two numbers in JSON are equal."""
    ignore: tuple[str, ...] = ()
    """Paths in JSON answers that do not count, e.g. `meta.took_ms` or `boxes[].id`."""
    text_similarity: float = 1.0
    """Texts at least this similar (0 to 1) are equal."""


class Mirroring(Struct, frozen=True, kw_only=True):
    """Copies of a service's requests that others get; callers never wait for those, nor feel them."""

    targets: tuple[str, ...]
    """Services, or CANDIDATE."""
    percent: float
    """Of the requests, 0 to 100."""
    compare: Comparison | None = None
    """Given: copies go to the shadow collector, which replays them to the one target and to the service itself."""


class Lifecycle(Struct, frozen=True, kw_only=True):
    """How a replica ends."""

    termination_grace_s: float = 30.0
    enable_sigterm: bool = False


Amount = int | str
"""A number of replicas, or a share of those wanted, such as `25%`."""


def amount_of(amount: Amount, of: int, *, round_up: bool) -> int:
    """How many replicas an amount is when `of` are wanted."""
    if isinstance(amount, int):
        return amount
    share = int(amount.removesuffix("%")) * of
    return -(-share // 100) if round_up else share // 100


class RolloutPolicy(Struct, frozen=True, kw_only=True):
    """How replicas of a new revision take the place of those before. Not part of a revision."""

    max_surge: Amount = "2%"
    """Replicas above the number wanted while a rollout is on; a share counts as at least one (EAS's default)."""
    max_unavailable: Amount = 0
    """Replicas that may be missing meanwhile; a share is rounded down."""
    waves: tuple[int, ...] = (20, 50, 100)
    """Percent of the replicas wanted that may be of the new revision, step by step; the last is 100."""
    wave_pause_s: float = 0.0
    """How long a wave must have served before the next begins."""
    stop_after: Amount = 1
    """So many failed replicas of the new revision pause the rollout; a share is of those wanted, at least one."""
    on_failure: Literal["revert", "pause"] = "revert"
    revert_after_s: float = 30.0
    """How long a paused rollout waits for somebody before it reverts."""
    progress_timeout_s: float = 600.0
    """A wave that has not come up by then pauses the rollout."""

    def surge(self, wanted: int) -> int:
        """Replicas above `wanted`; 0 only where `max_surge` is the number 0."""
        return max(amount_of(self.max_surge, wanted, round_up=True), 0 if self.max_surge in (0, "0%") else 1)

    def unavailable(self, wanted: int) -> int:
        """Replicas that may be missing of `wanted`; at least one where `max_surge` is 0, or nothing could ever move."""
        asked = amount_of(self.max_unavailable, wanted, round_up=False)
        return min(max(asked, 0 if self.surge(wanted) else 1), wanted)

    def stop_threshold(self, wanted: int) -> int:
        """Failed replicas that pause the rollout; at least 1."""
        return max(amount_of(self.stop_after, wanted, round_up=True), 1)


class SourceDigest(Struct, frozen=True, kw_only=True):
    """What a source of a revision contains: known at admission, or once its first replica has found it out (pins)."""

    source: str
    """Path in the service.json, e.g. `storage[0]`, `containers[0].image`, `storage[1].git`."""
    digest: str
    """`sha256:...`, a commit, or `mutable` when it can change under a revision."""


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
    image: Image | None = None
    """Given: a replica is a container (with its sidecars); None: a process of the node."""
    args: tuple[str, ...] = ()
    """Further words of the command, or of the image's own entry point."""
    sidecars: tuple[Sidecar, ...] = ()
    shm_mib: int | None = None
    """Size of /dev/shm; None: the engine's default, 64 MiB."""
    restart_nonce: int = 0
    """Raised by Restart: the same content, new replicas."""

    @property
    def runtime(self) -> Runtime:
        """What runs its replicas."""
        return "process" if self.image is None else "docker"


class RunSpec(Struct, frozen=True, kw_only=True):
    """What the scheduler tells the agent to run."""

    workspace: str
    service: str
    replica: str
    revision: RevisionSpec
    traceparent: str | None = None
    pins: dict[str, str] = {}
    """What the revision's sources are, as its first replica found them: path in the service.json
    (`containers[0].image`, `storage[1].git`) → `sha256:…` or a commit. What is not here yet, this replica finds out and
    reports."""
