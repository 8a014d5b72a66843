"""Waiting for what a service was told to become, with every step on the way.

Decides from the service's own state alone: reached, failed, or not yet. Events only wake it early; without them it
looks once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk.errors import EaselError, NotFound, ServiceFailed, TimedOut
from easel_sdk.events import EventsApi
from easel_sdk.replicas import ReplicasApi
from easel_sdk.services import ServicesApi

Wanted = Literal["running", "stopped", "deleted"]
LOOK_EVERY_S = 1.0
TOO_LARGE = "TooLarge"
"""Reason of a service whose replica no node could take even when empty: waiting would not help."""

_DEAD = ("failed", "lost", "stopped")


@dataclass(frozen=True)
class Progress:
    """One look at a service on its way. `service` is None when it is gone."""

    service: Service | None
    replicas: tuple[Replica, ...]
    elapsed_s: float
    done: bool


class Waiter:
    """Waits for services."""

    def __init__(self, services: ServicesApi, replicas: ReplicasApi, events: EventsApi) -> None:
        self._services = services
        self._replicas = replicas
        self._events = events

    async def watch(
        self, name: str, until: Wanted = "running", *, generation: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Progress]:
        """Every look until the service is `until`; the last one is `done`.

        `generation`: of the change that is waited for, so that the state before it does not count. Raises
        ServiceFailed (with the last log lines) or TimedOut (with what it was waiting for).
        """
        started = time.monotonic()
        woken = asyncio.Event()
        waker = asyncio.create_task(self._wake(name, woken))
        try:
            while True:
                progress = await self._look(name, until, generation, started)
                yield progress
                if progress.done:
                    return
                left_s = LOOK_EVERY_S if timeout_s is None else timeout_s - progress.elapsed_s
                if left_s <= 0:
                    raise _timed_out(name, until, progress, timeout_s or 0)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(LOOK_EVERY_S, left_s))
                woken.clear()
        finally:
            waker.cancel()
            await asyncio.gather(waker, return_exceptions=True)

    async def _wake(self, name: str, woken: asyncio.Event) -> None:
        try:
            async for _ in self._events.watch(key=name):
                woken.set()
        except EaselError:
            return  # looking once a second finds the same

    async def _look(self, name: str, until: Wanted, generation: int, started: float) -> Progress:
        try:
            service = await self._services.get(name)
        except NotFound:
            if until != "deleted":
                raise
            return Progress(None, (), time.monotonic() - started, True)
        replicas: tuple[Replica, ...] = ()
        with contextlib.suppress(EaselError):  # only told to people; the service's state decides
            replicas = tuple(await self._replicas.list(name, all=service.status == "Failed"))
        done = await self._reached(service, until, generation)
        return Progress(service, replicas, time.monotonic() - started, done)

    async def _reached(self, service: Service, until: Wanted, generation: int) -> bool:
        if service.observed_generation < max(generation, 1):
            return False
        if until == "running" and service.status == "Running":
            await self._raise_if_reverted(service, generation)
            return True
        if service.status in ("Failed", "DeleteFailed") or (until == "running" and service.reason == TOO_LARGE):
            raise await self._failure(service)
        return (until == "stopped" and service.status == "Stopped") or service.status == "Deleted"

    async def _raise_if_reverted(self, service: Service, generation: int) -> None:
        """A service can run on because its new revision was given up."""
        if generation == 0 or service.current_version == service.latest_version:
            return
        newest = next((r for r in await self._services.revisions(service.service_name)
                       if r.number == service.latest_version), None)  # fmt: skip
        if newest is not None and newest.state in ("failed", "reverted"):
            raise await self._failure(service)

    async def _failure(self, service: Service) -> ServiceFailed:
        name = service.service_name
        lines: tuple[str, ...] = ()
        with contextlib.suppress(EaselError):
            for replica in await self._replicas.list(name, all=True):
                if replica.last_log_lines and (replica.status in _DEAD or replica.reason):
                    lines = tuple(replica.last_log_lines)
                    break
        message, _, hint = service.message.partition(" Hint: ")  # control writes both into its one sentence
        return ServiceFailed(
            service.reason or "SERVICE_FAILED",
            message or f"service {name} is {service.status}",
            f"{hint.replace('NAME', name) or f'`easel logs {name} --previous`'}; `easel explain {name}` says more",
            lines,
        )


def _timed_out(name: str, until: Wanted, progress: Progress, timeout_s: float) -> TimedOut:
    service = progress.service
    said = "" if service is None else service.message or service.reason or "no reason given"
    state = "gone" if service is None else f"{service.status}: {said.partition(' Hint: ')[0]}"
    stuck = [
        f"{r.name} is {r.status}: {r.message}"
        for r in progress.replicas
        if not r.ready and r.message and r.message not in said
    ]
    return TimedOut(
        "TIMED_OUT", "; ".join([f"{name} is not {until} after {timeout_s:g} s ({state})", *stuck[:3]]),
        f"it goes on: `easel desc {name}`, `easel explain {name}`; wait longer with --timeout",
    )  # fmt: skip
