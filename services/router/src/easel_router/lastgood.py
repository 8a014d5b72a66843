"""The last good plans on disk, so that a restarted router serves them at once, whoever else is away.

A log of lines (JSON): first which epoch it is of, then one line per change, so that writing costs what changed; it is
written anew, whole and in one step, when most of it is outdated. A torn last line, from a crash, counts as not written.
The file holds tokens: 0600. It is a cache of what the owners know; losing it costs a call to control.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from easel_kit.telemetry import get_logger
from easel_router.decide.groups import GroupPlan
from easel_router.decide.snapshot import ServicePlan

FILE = "last-good.jsonl"
_SETTLE_S = 0.2
"""Changes within this time share one write."""
_SLACK = 1000
"""Outdated lines that are kept whatever the number of plans."""

_SCHEMA_VERSION = 3
"""A file of another one is dropped: 3 has several tokens per service, and groups."""

log = get_logger("lastgood")


class _Head(Struct, frozen=True, kw_only=True):
    schema_version: int = _SCHEMA_VERSION
    epoch: int


class _Line(Struct, frozen=True, kw_only=True):
    """One of the two; without a plan: the route was removed."""

    service: str = ""
    plan: ServicePlan | None = None
    group: str = ""
    group_plan: GroupPlan | None = None


class LastGood:
    """Plans that every Envoy has acknowledged."""

    def __init__(self, directory: Path, epoch: int) -> None:
        self._path, self._epoch = directory / FILE, epoch
        self._changed = asyncio.Event()
        self._due: dict[tuple[str, str], None] = {}
        """(service, group): one of the two is empty."""
        self._lines = 0
        """In the file; 0: it has to be written anew."""
        self.plans: dict[str, ServicePlan] = {}
        self.groups: dict[str, GroupPlan] = {}

    def load(self) -> None:
        """Reads the file; one that cannot be read is told and counts as none."""
        if not self._path.exists():
            return
        try:
            head, *lines = self._path.read_bytes().splitlines()
            found = msgspec.json.decode(head, type=_Head)
            if found.schema_version != _SCHEMA_VERSION:
                log.info("last good snapshot is of another version and is dropped", version=found.schema_version)
                return
            if (epoch := found.epoch) != self._epoch:
                # Of the time before a restore: it may hold services that nobody knows any more, and so nobody would
                # remove.
                log.info("last good snapshot is of another epoch and is dropped", epoch=epoch)
                return
            self._read(lines)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self.plans, self.groups = {}, {}
            log.error("last good snapshot not readable; tokens will be asked of control", error=repr(error))

    def put(self, plan: ServicePlan) -> None:
        """A plan was acknowledged."""
        if self.plans.get(plan.service) != plan:
            self.plans[plan.service] = plan
            self._is_due((plan.service, ""))

    def remove(self, service: str) -> None:
        """A route was removed."""
        if self.plans.pop(service, None) is not None:
            self._is_due((service, ""))

    def put_group(self, plan: GroupPlan) -> None:
        """A group's plan was acknowledged."""
        if self.groups.get(plan.group) != plan:
            self.groups[plan.group] = plan
            self._is_due(("", plan.group))

    def remove_group(self, group: str) -> None:
        """A group's route was removed."""
        if self.groups.pop(group, None) is not None:
            self._is_due(("", group))

    async def run(self) -> None:
        """Writes after changes, for ever."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_S)
            due = self._take()
            try:
                await asyncio.to_thread(self._write, *self._content(due))
            except OSError as error:
                log.error("last good snapshot not written", error=repr(error))
                self._lines = 0
                self._changed.set()
                await asyncio.sleep(5)

    async def flush(self) -> None:
        """Writes what is still due; at the end of the process."""
        if self._changed.is_set():
            self._write(*self._content(self._take()))

    def _read(self, lines: list[bytes]) -> None:
        for number, line in enumerate(lines, 1):
            try:
                found = msgspec.json.decode(line, type=_Line)
            except msgspec.MsgspecError:
                if number == len(lines):  # torn: the line before it is the newest
                    self._changed.set()
                    return
                raise
            if found.plan is not None:
                self.plans[found.service] = found.plan
            elif found.group_plan is not None:
                self.groups[found.group] = found.group_plan
            else:
                self.plans.pop(found.service, None)
                self.groups.pop(found.group, None)
        self._lines = len(lines)

    def _is_due(self, what: tuple[str, str]) -> None:
        self._due[what] = None
        self._changed.set()

    def _take(self) -> list[tuple[str, str]]:
        self._changed.clear()
        due, self._due = list(self._due), {}
        return due

    def _content(self, due: list[tuple[str, str]]) -> tuple[bytes, bool]:
        """(what to write, whether the file begins anew with it)."""
        anew = not self._lines or self._lines + len(due) > 2 * (len(self.plans) + len(self.groups)) + _SLACK
        named = [*((name, "") for name in self.plans), *(("", name) for name in self.groups)] if anew else due
        lines = [
            msgspec.json.encode(
                _Line(service=service, plan=self.plans.get(service), group=group, group_plan=self.groups.get(group))
            )
            for service, group in named
        ]
        self._lines = len(lines) if anew else self._lines + len(lines)
        head = [msgspec.json.encode(_Head(epoch=self._epoch))] if anew else []
        return b"".join(line + b"\n" for line in [*head, *lines]), anew

    def _write(self, content: bytes, anew: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        target = self._path.with_suffix(".new") if anew else self._path
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND), 0o600)
        try:
            _write_all(handle, content)
            os.fsync(handle)
        finally:
            os.close(handle)
        if anew:
            os.replace(target, self._path)


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
