"""Settings of the agent. Field `first_port` is EASEL_AGENT_FIRST_PORT, and so on (see easel_kit.settings)."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import psutil

from easel_kit.settings import ProcessSettings


class AgentSettings(ProcessSettings, frozen=True, kw_only=True):
    """What the agent needs beside what every process needs."""

    node: str = ""
    """Id of this node; empty: made from the host's name, `local` in standalone mode."""
    address: str = "127.0.0.1"
    """IP at which replicas are reached."""
    network: str = "local"
    """Name of the network that `address` belongs to."""
    cpu: float = 0.0
    """Cores that may be promised to replicas; 0: all of the machine."""
    memory_mib: int = 0
    """Memory that may be promised to replicas; 0: all of the machine (or of this process's control group)."""
    first_port: int = 20000
    last_port: int = 29999
    hide: str = ""
    """Directories that replicas must never see, separated by `:`; beside home and the directories of all secrets."""
    inherit: str = "TZ SSL_CERT_FILE SSL_CERT_DIR CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES"
    """Names of the machine's environment variables that replicas get."""
    docker: str = "auto"
    """Socket of the Docker engine that runs containers here, `unix:///path`; `auto`: unix:///var/run/docker.sock where
    there is one; empty: no containers."""
    docker_network: str = ""
    """An existing network with a subnet of its own that replicas join; empty: the agent makes one."""
    gpus: int = -1
    """GPUs that may be given to containers; -1: those that the machine shows."""
    startup_limit_s: float = 1800.0
    """A program without a startup probe that has not opened its port by then is started again."""
    processes_per_replica: int = 4096
    """Most processes and threads of one replica (with control groups)."""
    log_file_mib: int = 10
    log_files: int = 3
    """Files per run; the run before is kept too."""
    logs_total_mib: int = 2048
    """Above this the logs of ended replicas are removed, the oldest first."""
    environments_kept: int = 20
    archives_kept: int = 50
    build_timeout_s: float = 1800.0
    """Longest time to install a set of Python requirements."""
    git_timeout_s: float = 600.0
    """Longest time to fetch a git repository."""
    git_max_mib: int = 4096
    """Most bytes fetched from a git repository, and most that its files may have."""
    git_trees_kept: int = 20
    image_trees_kept: int = 20
    """Copies of images' files."""
    objects_timeout_s: float = 7200.0
    """Longest time to fetch what lies below a prefix of an object store."""
    objects_parallel: int = 8
    """Objects that are downloaded at a time."""
    objects_cache_mib: int = 51200
    """Above this, objects that no replica uses are removed, those first that were used least lately."""
    object_stores_file: Path | None = None
    """JSON with logins for object stores, mode 0600: `{"oss": {"key": …, "secret": …}, "s3://bucket": {…}}`."""

    def node_id(self) -> str:
        """The node's id."""
        if self.node or self.mode == "standalone":
            return self.node or "local"
        return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-") or "local"

    def capacity(self) -> tuple[float, int]:
        """Cores and MiB that may be promised."""
        cpu = self.cpu or float(len(os.sched_getaffinity(0)))
        return cpu, self.memory_mib or min(psutil.virtual_memory().total, _group_limit()) // (1024 * 1024)

    def docker_socket(self) -> Path | None:
        """Where the engine is spoken to; None: nowhere."""
        if self.docker == "auto":
            return Path("/var/run/docker.sock")
        return Path(self.docker.removeprefix("unix://")) if self.docker else None

    def gpus_found(self) -> int:
        """Devices that may be given to replicas."""
        if self.gpus >= 0:
            return self.gpus
        shown = Path("/proc/driver/nvidia/gpus")
        return len(list(shown.iterdir())) if shown.is_dir() else 0

    def hidden(self) -> list[Path]:
        """Everything of Easel's own: home, `hide`, and where secrets and sockets lie."""
        files = [self.nats_seed_file, self.db_password_file, self.process_token_file, self.peers_file,
                 self.object_stores_file]  # fmt: skip
        found = [self.home, *(Path(part) for part in self.hide.split(":") if part)]
        found += [file.parent for file in files if file is not None]
        addresses = [self.health_addr, self.control_addr, self.scheduler_addr, self.agent_addr, self.autoscaler_addr,
                     self.router_addr, self.monitor_addr]  # fmt: skip
        found += [Path(address.removeprefix("unix:")).parent for address in addresses if address.startswith("unix:/")]
        never = {Path("/"), Path("/tmp"), Path("/run"), Path("/var/run"), Path("/etc"), Path.home()}
        return [path.resolve() for path in found if path.resolve() not in never]


def _group_limit() -> int:
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return 1 << 62
