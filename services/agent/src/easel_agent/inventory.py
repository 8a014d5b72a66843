"""The agent's only memory: the highest fencing token seen, what it started, and which replicas were told to end."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
from msgspec import Struct

from easel_contracts.errors import Conflict
from easel_contracts.runtime import ReplicaReport
from easel_kit.telemetry import get_logger

log = get_logger("inventory")

ENDED_KEPT = 500


class Started(Struct, frozen=True, kw_only=True):
    """A replica that may have left something on this machine."""

    replica: str
    service: str
    port: int = 0
    init_pid: int | None = None
    init_started: int = 0
    """Start time of that process in clock ticks since boot: tells a reused pid."""


class Content(Struct, kw_only=True):
    """What the file holds."""

    fencing_token: int = 0
    started: dict[str, Started] = {}
    ended: dict[str, ReplicaReport] = {}


class Inventory:
    """A JSON file, replaced whole; small, so each change writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.content = msgspec.json.decode(path.read_bytes(), type=Content) if path.exists() else Content()

    def check_token(self, token: int) -> None:
        """Refuse a command of a scheduler that has lost its lease; remember the highest token durably."""
        highest = self.content.fencing_token
        if token < highest:
            raise Conflict("STALE_FENCING_TOKEN", f"token {token} is older than {highest}, which this agent has seen",
                           "another scheduler has taken over this node")  # fmt: skip
        if token > highest:
            self._write(msgspec.structs.replace(self.content, fencing_token=token), durable=True)
            self.content.fencing_token = token

    def begun(self, entry: Started) -> None:
        """A replica starts, or its process changed."""
        self.content.started[entry.replica] = entry
        self.write()

    def ended(self, report: ReplicaReport) -> None:
        """A replica has ended as told; a late command must not start it again."""
        self.content.started.pop(report.replica, None)
        self.content.ended[report.replica] = report
        while len(self.content.ended) > ENDED_KEPT:
            self.content.ended.pop(next(iter(self.content.ended)))
        self.write()

    def write(self) -> None:
        """Replace the file. On a full disk the old one stays: what it misses is found by looking at the machine."""
        try:
            self._write(self.content)
        except OSError as error:
            log.error("inventory not written", error=str(error))

    def _write(self, content: Content, *, durable: bool = False) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".inventory")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(msgspec.json.encode(content))
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            os.replace(name, self._path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return 0
