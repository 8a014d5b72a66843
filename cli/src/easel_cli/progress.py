"""Progress of a service on its way, a line for each change; on a terminal also a moving line with the time spent."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from easel_cli import rollouts

if TYPE_CHECKING:
    from easel_sdk import Client, Progress, Replacement
    from easel_sdk.types import Replica, Service
    from easel_sdk.waiting import Wanted

DEFAULT_TIMEOUT_S = 900.0
PHASES = ("schedule", "fetch", "pull", "mount", "start", "probe", "route")
"""Order in which the phases of a start are told."""


async def follow(
    client: Client, service: Service, until: Wanted = "running", *, timeout_s: float | None = None,
    over_pauses: bool = False,
) -> Service | None:  # fmt: skip
    """Waits with progress on stderr for what `service`, the answer of a change, is to become; returns the service,
    None when it is gone. Raises as `Client.wait`."""
    found = None
    with _Teller() as teller:
        async for progress in client.watch_progress(
            service, until, timeout_s=_limit(timeout_s), over_pauses=over_pauses
        ):
            found = progress.service
            teller.tell(describe(progress), progress.elapsed_s, done=progress.done)
    return found


async def follow_replacement(
    client: Client, name: str, before: Sequence[Replica], *, soft: bool, timeout_s: float | None
) -> None:
    """Waits with progress on stderr until the replicas are replaced, or restarted in their place."""
    with _Teller() as teller:
        async for look in client.watch_replacement(name, before, soft=soft, timeout_s=_limit(timeout_s)):
            teller.tell(describe_replacement(look, len(before), soft=soft), look.elapsed_s, done=look.done)


def describe_replacement(look: Replacement, asked: int, *, soft: bool) -> str:
    """One look at replicas that are being replaced in a line."""
    verb = "restarted" if soft else "replaced"
    if look.done:
        return f"{asked} {'replica is' if asked == 1 else 'replicas are'} {verb}"
    left = f"{asked - len(look.left)} of {asked} {verb}"
    said = [replica.message for replica in look.replicas if replica.message and not replica.ready]
    return " · ".join([left, f"{rollouts.shown(look.replicas)} of {look.wanted} wanted", *said[:1]])


def _limit(timeout_s: float | None) -> float:
    return DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s


def describe(progress: Progress) -> str:
    """One look in a line, in EASCMD's words."""
    from easel_sdk.waiting import without_counts

    service = progress.service
    if service is None or service.status == "Deleted":
        return "Service was deleted successfully"
    if progress.done:
        at_zero = ", without replicas until a request comes" if progress.at_zero else ""
        waits = f" and begins the rollout ({rollouts.change(progress.rollout)})" if progress.rollout is not None else ""
        return f"Service is {service.status.lower()}{at_zero}{waits}"
    if progress.rollout is not None:
        return f"{service.status} · {rollouts.line(progress.rollout, progress.replicas)}"
    total = service.total_instance or len(progress.replicas)
    ready = sum(replica.ready for replica in progress.replicas)
    counts = Counter(replica.status for replica in progress.replicas if not replica.ready)
    parts = [f"{service.status} [Total: {total}, Pending: {max(total - ready, 0)}, Running: {ready}]"]
    if counts:
        parts.append(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    said = [replica.message for replica in progress.replicas if replica.message and not replica.ready]
    message = said[0] if said else without_counts(service.message)  # the counts stand here already
    return " · ".join([*parts, *([message] if message else [])])


def phases(service: Service) -> str:
    """How long each phase of the last start took, e.g. `fetch 8.1 s, start 0.4 s`."""
    return phases_of(service.phase_s)


def phases_of(phase_s: Mapping[str, float]) -> str:
    """Seconds by phase, in the order in which they come; those that are not known here last."""
    known = sorted(phase_s, key=lambda name: (PHASES.index(name) if name in PHASES else len(PHASES), name))
    return ", ".join(f"{name} {phase_s[name]:.1f} s" for name in known)


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
