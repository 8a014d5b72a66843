"""What the tags and branches of a revision name. Its first replica finds out; every other runs the same.

Replicas that start at once may find different things where a tag moves meanwhile. The first answer that is written is
the revision's, and who found something else is replaced: the successor is told what to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from easel_contracts.facts import ServiceState
from easel_contracts.spec import GitSource, ImageSource, RevisionSpec
from easel_contracts.states import REPLICA, step
from easel_scheduler.decide.world import Replica

MOVED = "SourceMoved"
"""Cause of a replica that found something else. It says nothing of the revision: its successor waits for nothing."""

KEEP_REVISIONS = 100
"""Of a service that exists; control keeps as many revisions to go back to."""


TOLD_AFTER_S = 10.0
"""One that was placed so long after the first answer was started with it, however slow the database was."""


class Kept(Struct, frozen=True, kw_only=True):
    """The first answer for one source of a revision."""

    value: str
    replica: str
    """Who found it."""
    at: datetime


class Pinned(Struct, frozen=True, kw_only=True):
    """A revision for which something is kept."""

    service: str
    service_uid: str
    revision: int


def is_pinned(spec: RevisionSpec) -> bool:
    """Whether anything of the revision can move under its name."""
    return spec.image is not None or any(isinstance(m.source, GitSource | ImageSource) for m in spec.mounts)


def settled(r: Replica, kept: Mapping[str, Kept], now: datetime) -> Replica:
    """The replica once what it runs is compared with what its revision runs; as it was, where that is the same.

    One that was told what to run and runs something else is a fault of its agent, and counts as a failure: nobody
    makes successors of such without end.
    """
    moved = sorted(path for path, value in r.pins.items() if path in kept and kept[path].value != value)
    if not moved or r.state in ("draining", "stopped", "lost"):
        return r
    first, found = kept[moved[0]], short(r.pins[moved[0]])
    runs = f"the revision runs {short(first.value)}, as {first.replica} found it first"
    if r.placed_at is not None and (r.placed_at - first.at).total_seconds() > TOLD_AFTER_S:
        return _ended(r, "failed", "AgentError", f"{moved[0]}: it runs {found} though {runs}", now)
    what = "branch" if moved[0].endswith(".git") else "tag"
    message = f"{moved[0]}: the {what} moved while the first replicas started: this one found {found}, {runs}"
    return _ended(r, "lost", MOVED, f"{message}; its successor runs the same", now)


def outlived(pinned: Sequence[Pinned], services: Mapping[str, ServiceState | None]) -> list[Pinned]:
    """Revisions that nobody can start any more. A service that is not known is not gone."""
    newest: dict[str, int] = {}
    for p in pinned:
        newest[p.service_uid] = max(p.revision, newest.get(p.service_uid, 0))
    return [p for p in pinned if _is_outlived(p, services.get(p.service), newest[p.service_uid])]


def short(value: str) -> str:
    """A digest or commit as people read it: `sha256:0123456789ab`, `0123456789ab`."""
    head, colon, digest = value.rpartition(":")
    return f"{head}{colon}{digest[:12]}"


def _is_outlived(p: Pinned, service: ServiceState | None, newest: int) -> bool:
    if service is None:
        return False
    if service.uid != p.service_uid or service.wanted == "deleted":
        return True
    in_use = {service.revision.number, *([service.rollout.stable.number] if service.rollout else [])}
    return p.revision not in in_use and p.revision <= newest - KEEP_REVISIONS


def _ended(r: Replica, state: str, cause: str, message: str, now: datetime) -> Replica:
    """`failed` stays what it is: only why is said anew."""
    if r.state != state and r.live:
        step("replica", REPLICA, r.state, state)
    return replace(r, state=state, state_at=now, ended_at=now, cause=cause, message=message)
