"""Waiting until named replicas were replaced, or their processes started anew.

Decides from what the replicas were before: a replaced one is gone and as many as wanted are ready; one restarted in its
place is ready with another process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk.errors import TimedOut
from easel_sdk.events import EventsApi
from easel_sdk.looking import looks
from easel_sdk.replicas import ReplicasApi
from easel_sdk.services import ServicesApi
from easel_sdk.waiting import ENDED, failure_of


@dataclass(frozen=True)
class Replacement:
    """One look at replicas that are being replaced."""

    left: tuple[str, ...]
    """Of the named ones, those still to be replaced or restarted."""
    replicas: tuple[Replica, ...]
    """All that live."""
    wanted: int
    """How many of them should be ready."""
    elapsed_s: float
    done: bool


async def watch_replacement(
    name: str, before: Sequence[Replica], services: ServicesApi, replicas: ReplicasApi, events: EventsApi, *,
    soft: bool, timeout_s: float | None,
) -> AsyncIterator[Replacement]:  # fmt: skip
    """Every look until all of `before`, as they were before the call, are replaced (`soft`: restarted in place).

    Raises ServiceFailed when the service cannot run any more, or TimedOut with those that are left.
    """

    async def look(elapsed_s: float) -> Replacement:
        service = await services.get(name)
        if service.status == "Failed":
            raise await failure_of(service, replicas)
        return seen(before, await replicas.list(name), service, soft=soft, elapsed_s=elapsed_s)

    def timed_out(last: Replacement, limit_s: float) -> TimedOut:
        return TimedOut(
            "TIMED_OUT", f"after {limit_s:g} s {', '.join(last.left) or 'their successors'} of {name} "
            f"{'is' if len(last.left) == 1 else 'are'} not {'restarted' if soft else 'replaced'}",
            f"it goes on: `easel w {name}`, `easel explain {name}`; wait longer with --timeout",
        )  # fmt: skip

    async for found in looks(events, name, look, timeout_s=timeout_s, timed_out=timed_out):
        yield found


def seen(
    before: Sequence[Replica], now: Sequence[Replica], service: Service, *, soft: bool, elapsed_s: float
) -> Replacement:
    """How far it is."""
    living = {replica.name: replica for replica in now if replica.status not in ENDED}
    there = [(old, living[old.name]) for old in before if old.name in living]
    left = tuple(old.name for old, new in there if not (soft and _restarted(old, new)))
    whole = sum(replica.ready and not replica.isolated for replica in now) >= service.wanted_instance
    in_place = soft and len(there) == len(before)
    return Replacement(left, tuple(now), service.wanted_instance, elapsed_s, not left and (in_place or whole))


def _restarted(old: Replica, new: Replica) -> bool:
    """Whether another process answers in its place. A replica that is isolated need not be ready."""
    started = (new.pid, new.container, new.restarts) != (old.pid, old.container, old.restarts)
    return started and (new.ready or new.isolated)
