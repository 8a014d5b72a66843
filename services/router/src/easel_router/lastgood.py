"""The last good plans on disk, so that a restarted router serves them at once, whoever else is away.

The file holds tokens: 0600, replaced whole, never partly written. It is a cache of what the owners know; losing it
costs a call to control.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from easel_kit.telemetry import get_logger
from easel_router.decide.snapshot import ServicePlan

FILE = "last-good.msgpack"
_SETTLE_S = 0.2
"""Changes within this time share one write."""

log = get_logger("lastgood")


class _Content(Struct, frozen=True, kw_only=True):
    schema_version: int = 1
    epoch: int = 1
    plans: list[ServicePlan]


class LastGood:
    """Plans that every Envoy has acknowledged."""

    def __init__(self, directory: Path, epoch: int) -> None:
        self._path, self._epoch = directory / FILE, epoch
        self._changed = asyncio.Event()
        self.plans: dict[str, ServicePlan] = {}

    def load(self) -> None:
        """Reads the file; one that cannot be read is told and counts as none."""
        if not self._path.exists():
            return
        try:
            content = msgspec.msgpack.decode(self._path.read_bytes(), type=_Content)
        except (OSError, msgspec.MsgspecError) as error:
            log.error("last good snapshot not readable; tokens will be asked of control", error=repr(error))
            return
        if content.epoch != self._epoch:
            # Of the time before a restore: it may hold services that nobody knows any more, and so nobody would remove.
            log.info("last good snapshot is of another epoch and is dropped", epoch=content.epoch)
            return
        self.plans = {plan.service: plan for plan in content.plans}

    def put(self, plan: ServicePlan) -> None:
        """A plan was acknowledged."""
        if self.plans.get(plan.service) != plan:
            self.plans[plan.service] = plan
            self._changed.set()

    def remove(self, service: str) -> None:
        """A route was removed."""
        if self.plans.pop(service, None) is not None:
            self._changed.set()

    async def run(self) -> None:
        """Writes after changes, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_S)
            self._changed.clear()
            content = msgspec.msgpack.encode(_Content(epoch=self._epoch, plans=list(self.plans.values())))
            try:
                await asyncio.to_thread(self._write, content)
            except OSError as error:
                log.error("last good snapshot not written", error=repr(error))
                self._changed.set()
                await asyncio.sleep(5)

    async def flush(self) -> None:
        """Writes what is still due; at the end of the process."""
        if self._changed.is_set():
            self._write(msgspec.msgpack.encode(_Content(epoch=self._epoch, plans=list(self.plans.values()))))

    def _write(self, content: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(fresh, self._path)


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
