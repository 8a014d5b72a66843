"""Waiting for what a service was told to become, with every step on the way.

Decides from the service's own state alone: reached, failed, or not yet.

- A rollout that is on is not the end, whatever the status says. One that is paused and does not revert by itself is
  the end, for nothing more will happen; except for those who follow it over its pauses.
- At zero replicas a rollout waits for the next request: that is the end, too.
- When it is over, the revision that was waited for must be the present one: a service can run on because its new
  revision was given up. A restart has no number of its own: control's reason tells that it was taken back.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Rollout, Service
from easel_sdk.errors import EaselError, NotFound, ServiceFailed, TimedOut
from easel_sdk.events import EventsApi
from easel_sdk.looking import looks
from easel_sdk.replicas import ReplicasApi
from easel_sdk.services import ServicesApi

Wanted = Literal["running", "stopped", "deleted"]
TOO_LARGE = "TooLarge"
"""Reason of a service whose replica no node could take even when empty: waiting would not help."""

AT_ZERO = "ScaledToZero"
"""Reason of a Running service without replicas: a request would be held and answered."""
ENDED = ("failed", "lost", "stopped")
"""States of replicas that live no more."""

_TAKEN_BACK = ("RollingBack", "RolledBack")
_GIVEN_UP = ("failed", "reverted")


@dataclass(frozen=True)
class Progress:
    """One look at a service on its way. `service` is None when it is gone."""

    service: Service | None
    replicas: tuple[Replica, ...]
    elapsed_s: float
    done: bool

    @property
    def rollout(self) -> Rollout | None:
        """The rollout that is on."""
        return self.service.rollout if self.service is not None and self.service.HasField("rollout") else None

    @property
    def at_zero(self) -> bool:
        """Whether it runs without replicas, because nobody calls it."""
        return self.service is not None and is_at_zero(self.service)


def is_at_zero(service: Service) -> bool:
    """Whether it runs without replicas, because nobody calls it."""
    return service.status == "Running" and service.reason == AT_ZERO


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is waited for."""

    name: str
    until: Wanted = "running"
    generation: int = 0
    """Of the change: the state before it does not count. 0: any."""
    revision: int = 0
    """What shall be present at the end. 0: that of a rollout that is seen on the way, else any."""
    rolling: bool = False
    """The change began a rollout, or came while one was on."""
    over_pauses: bool = False
    """Goes on when a rollout is paused until somebody resumes or reverts it."""


def goal_of(service: Service | str, until: Wanted, *, generation: int, over_pauses: bool) -> Goal:
    """What to wait for after a change that answered with `service`; a name stands for the service as it is."""
    if isinstance(service, str):
        return Goal(name=service, until=until, generation=generation, over_pauses=over_pauses)
    return Goal(name=service.service_name, until=until, generation=generation or service.generation,
                revision=wanted_revision(service), rolling=service.HasField("rollout"),
                over_pauses=over_pauses)  # fmt: skip


def wanted_revision(service: Service) -> int:
    """The revision that every replica shall have in the end."""
    return service.rollout.to_revision if service.HasField("rollout") else service.current_version


async def watch(
    goal: Goal, services: ServicesApi, replicas: ReplicasApi, events: EventsApi, timeout_s: float | None
) -> AsyncIterator[Progress]:
    """Every look until the goal is reached; the last one is `done`.

    Raises ServiceFailed (with the last log lines) or TimedOut (with what it was waiting for).
    """
    judge = _Judge(goal, services, replicas)
    async for progress in looks(events, goal.name, judge.look, timeout_s=timeout_s, timed_out=judge.timed_out):
        yield progress


class _Judge:
    """Looks, and says whether that is the end. Remembers the last rollout that was on."""

    def __init__(self, goal: Goal, services: ServicesApi, replicas: ReplicasApi) -> None:
        self._goal, self._services, self._replicas = goal, services, replicas
        self._rollout: Rollout | None = None

    async def look(self, elapsed_s: float) -> Progress:
        """One look. Raises ServiceFailed; NotFound where that is not the goal."""
        try:
            service = await self._services.get(self._goal.name)
        except NotFound:
            if self._goal.until != "deleted":
                raise
            return Progress(None, (), elapsed_s, True)
        replicas: tuple[Replica, ...] = ()
        with contextlib.suppress(EaselError):  # only told to people; the service's state decides
            replicas = tuple(await self._replicas.list(self._goal.name, all=service.status == "Failed"))
        return Progress(service, replicas, elapsed_s, await self._reached(service))

    def timed_out(self, progress: Progress, timeout_s: float) -> TimedOut:
        """What it was waiting for when the time was over."""
        name, service, rollout = self._goal.name, progress.service, progress.rollout
        said = "" if service is None else service.message or service.reason or "no reason given"
        said, _, hint = said.partition(" Hint: ")  # control writes both into its one sentence
        state = "gone" if service is None else f"{service.status}: {said}"
        if rollout is not None and (why := rollout.message.partition(" Hint: ")[0]) not in said:
            state += f"; the rollout is {rollout.state}: {why}"
        stuck = [
            f"{r.name} is {r.status}: {r.message}"
            for r in progress.replicas
            if not r.ready and r.message and r.message not in said
        ]
        return TimedOut(
            "TIMED_OUT", "; ".join([f"{name} is not {self._goal.until} after {timeout_s:g} s ({state})", *stuck[:3]]),
            (f"{hint.replace('NAME', name)}; " if hint else "")
            + f"it goes on: `easel desc {name}`, `easel explain {name}`; wait longer with --timeout",
        )  # fmt: skip

    async def _reached(self, service: Service) -> bool:
        if service.observed_generation < max(self._goal.generation, 1):
            return False
        if self._goal.until == "running":
            return await self._runs(service)
        if service.status in ("Failed", "DeleteFailed"):
            raise await failure_of(service, self._replicas)
        return (self._goal.until == "stopped" and service.status == "Stopped") or service.status == "Deleted"

    async def _runs(self, service: Service) -> bool:
        if service.HasField("rollout"):
            self._rollout = rollout = service.rollout
            if rollout.state == "paused" and not rollout.HasField("revert_time") and not self._goal.over_pauses:
                raise await self._paused(service, rollout)
            return is_at_zero(service)
        if not await self._revision_stands(service):
            return False
        if service.status in ("Failed", "DeleteFailed") or service.reason == TOO_LARGE:
            raise await failure_of(service, self._replicas)
        return service.status == "Running"

    async def _revision_stands(self, service: Service) -> bool:
        """Whether the revision that was waited for is present; raises when it was given up for another."""
        wanted = self._goal.revision or (self._rollout.to_revision if self._rollout else 0)
        if not wanted or service.current_version == wanted:
            if (self._goal.rolling or self._rollout is not None) and service.reason in _TAKEN_BACK:
                raise await self._given_up(service, f"the restart of revision {wanted}", wanted)
            return True
        revisions = await self._services.revisions(service.service_name)
        state = next((r.state for r in revisions if r.number == wanted), "")
        if state in _GIVEN_UP:
            raise await self._given_up(service, f"revision {wanted}", wanted)
        if state == "superseded":
            raise ServiceFailed(
                "SUPERSEDED", f"revision {wanted} of {service.service_name} gave way to revision "
                f"{service.current_version}, which was asked for meanwhile", f"`easel audit --target "
                f"service/{service.service_name}` shows by whom",
            )  # fmt: skip
        return False

    async def _given_up(self, service: Service, what: str, revision: int) -> ServiceFailed:
        name, present = service.service_name, service.current_version
        paused = self._rollout if self._rollout is not None and self._rollout.state == "paused" else None
        own = service.message.removeprefix("Service is running; ").partition(" Hint: ")[0]
        why = paused.message.partition(" Hint: ")[0] if paused else without_counts(own)
        compare = f"`easel revisions {name} --diff {present} {revision}` shows what differs; "
        return ServiceFailed(
            (paused.reason if paused else "") or "RolledBack",
            f"{what} of {name} was reverted; {'it serves' if present == revision else f'revision {present} serves'} on"
            + (f": {why}" if why else ""),
            f"{compare if present != revision else ''}`easel explain {name}` says more",
            await _last_lines(name, self._replicas, revision),
        )  # fmt: skip

    async def _paused(self, service: Service, rollout: Rollout) -> ServiceFailed:
        name = service.service_name
        return ServiceFailed(
            rollout.reason or "RolloutPaused",
            f"the rollout of {name} to revision {rollout.to_revision} is paused at {rollout.share_percent} %"
            + (f": {rollout.message}" if rollout.message else ""),
            f"it stays so until `easel rollout {name} resume` or `easel rollout {name} revert`",
            await _last_lines(name, self._replicas, rollout.to_revision),
        )


def without_counts(message: str) -> str:
    """A service's message without the counters of replicas that EAS begins it with."""
    return message.partition("; ")[2] if message.startswith("Total ") else message


async def failure_of(service: Service, replicas: ReplicasApi) -> ServiceFailed:
    """Why a service is in a state it will not leave by itself."""
    name = service.service_name
    message, _, hint = service.message.partition(" Hint: ")  # control writes both into its one sentence
    return ServiceFailed(
        service.reason or "SERVICE_FAILED",
        message or f"service {name} is {service.status}",
        f"{hint.replace('NAME', name) or f'`easel logs {name} --previous`'}; `easel explain {name}` says more",
        await _last_lines(name, replicas, 0),
    )


async def _last_lines(name: str, replicas: ReplicasApi, revision: int) -> tuple[str, ...]:
    """What the newest replica in trouble printed last; of one revision, or (0) of any."""
    with contextlib.suppress(EaselError):
        for replica in await replicas.list(name, all=True):
            of_it = revision in (0, replica.revision)
            if of_it and replica.last_log_lines and (replica.status in ENDED or replica.reason):
                return tuple(replica.last_log_lines)
    return ()
