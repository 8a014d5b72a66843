"""Makes what the tests of sources hand to `Sources.fetch`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from easel_agent.cache import COMPLETE
from easel_agent.sources import Fetched, ImageFiles, ObjectStores, SourceLimits, Sources
from easel_contracts.spec import Mount, Resources, RevisionSpec, RunSpec, Source


class GitLogin(Struct, frozen=True):
    """For a repository."""

    username: str
    password: str


class Node:
    """One node's sources, and the lines of its replicas' logs."""

    def __init__(self, home: Path, limits: SourceLimits | None = None, stores: Path | None = None) -> None:
        self.home = home / "sources"
        self.replicas = home / "replicas"
        self.events: list[str] = []
        self.sources = Sources(self.home, limits or SourceLimits(), ObjectStores(stores))

    async def fetch(
        self, *mounts: Mount | Source, pins: dict[str, str] | None = None, replica: str = "r-1",
        logins: dict[int, GitLogin] | None = None, images: ImageFiles | None = None,
    ) -> Fetched:  # fmt: skip
        """Fetch these mounts, the first at /mnt/0 and so on, as a replica would."""
        run = run_of(*mounts, pins=pins or {}, replica=replica)
        return await self.sources.fetch(run, self.replicas / replica, logins or {}, self.events.append, images)


def run_of(*mounts: Mount | Source, pins: dict[str, str], replica: str = "r-1") -> RunSpec:
    """A replica with these mounts."""
    made = tuple(mount if isinstance(mount, Mount) else Mount(mount_path=f"/mnt/{number}", source=mount)
                 for number, mount in enumerate(mounts))  # fmt: skip
    revision = RevisionSpec(number=1, resources=Resources(cpu=1, memory_mib=100), port=8000, mounts=made)
    return RunSpec(workspace="w", service="s", replica=replica, revision=revision, pins=pins)


def content(root: Path) -> dict[str, bytes | None]:
    """Every file below a directory with its content; directories that are empty with None."""
    found: dict[str, bytes | None] = {}
    for parent, folders, files in os.walk(root):
        for name in files:
            path = Path(parent, name)
            found[str(path.relative_to(root))] = path.read_bytes()
        for name in folders:
            if not os.listdir(os.path.join(parent, name)):
                found[str(Path(parent, name).relative_to(root)) + "/"] = None
    return found


@contextmanager
def small_disk(at: Path, options: str) -> Iterator[Path]:
    """A tmpfs with these mount options, e.g. `size=1m`. Only for root."""
    import subprocess

    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "easel-test", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def last_used(found: Fetched, at_unix_s: int) -> None:
    """Date the use of the tree at /mnt/0: a file system's clock may be too coarse to tell which came first."""
    os.utime(found.paths["/mnt/0"].parent / COMPLETE, (at_unix_s, at_unix_s))


async def turn() -> None:
    """Let what is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)
