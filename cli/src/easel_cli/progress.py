"""Progress of a service on its way, a line for each change; on a terminal also a moving line with the time spent."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from easel_sdk import Client, Progress
    from easel_sdk.types import Service
    from easel_sdk.waiting import Wanted

DEFAULT_TIMEOUT_S = 900.0
PHASES = ("schedule", "fetch", "pull", "mount", "start", "probe", "route")
"""Order in which the phases of a start are told."""


async def follow(
    client: Client, name: str, until: Wanted, *, generation: int = 0, timeout_s: float | None = None
) -> Service | None:
    """Waits with progress on stderr; returns the service, None when it is gone. Raises as `Client.wait`."""
    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    service = None
    with _Teller() as teller:
        async for progress in client.watch_progress(name, until, generation=generation, timeout_s=limit_s):
            service = progress.service
            teller.tell(describe(progress), progress.elapsed_s, done=progress.done)
    return service


def describe(progress: Progress) -> str:
    """One look in a line, in EASCMD's words."""
    service = progress.service
    if service is None or service.status == "Deleted":
        return "Service was deleted successfully"
    if progress.done:
        return f"Service is {service.status.lower()}"
    total = service.total_instance or len(progress.replicas)
    ready = sum(replica.ready for replica in progress.replicas)
    counts = Counter(replica.status for replica in progress.replicas if not replica.ready)
    parts = [f"{service.status} [Total: {total}, Pending: {max(total - ready, 0)}, Running: {ready}]"]
    if counts:
        parts.append(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    said = [replica.message for replica in progress.replicas if replica.message and not replica.ready]
    own = service.message
    if own.startswith("Total "):  # the counts stand here already
        own = own.partition("; ")[2]
    message = said[0] if said else own
    return " · ".join([*parts, *([message] if message else [])])


def phases(service: Service) -> str:
    """How long each phase of the last start took, e.g. `fetch 8.1 s, start 0.4 s`."""
    known = sorted(service.phase_s, key=lambda name: (PHASES.index(name) if name in PHASES else len(PHASES), name))
    return ", ".join(f"{name} {service.phase_s[name]:.1f} s" for name in known)


class _Teller:
    """Prints each new line once."""

    def __init__(self) -> None:
        self._last = ""
        self._status: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("waiting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, line: str, elapsed_s: float, *, done: bool) -> None:
        """Prints the line if it is new; keeps it moving on a terminal."""
        if line != self._last:
            self._last = line
            print(f"{'[OK]' if done else '[..]'} {elapsed_s:6.1f} s  {line}", file=sys.stderr, flush=True)
        if self._status is not None:
            from rich.markup import escape

            room = max(shutil.get_terminal_size().columns - 4, 20)  # one line: more of them would flicker
            self._status.update(escape(f"{elapsed_s:.0f} s  {line}"[:room]))
