"""Carries out decide/expiry.py: warns of, and deletes, services that nobody has used for half a year."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from easel_contracts.facts import Cause
from easel_contracts.ids import uuid7
from easel_control import audit
from easel_control.decide.change import deleted
from easel_control.decide.expiry import Due, due
from easel_control.memberships import Memberships
from easel_control.model import ServiceRow
from easel_control.store import Store
from easel_kit.clock import Clock
from easel_kit.db import Stale
from easel_kit.grpc import Caller
from easel_kit.leases import Leases
from easel_kit.telemetry import get_logger

log = get_logger("expiry")


class Expiry:
    """One workspace's unused services."""

    def __init__(
        self, workspace: str, store: Store, memberships: Memberships, leases: Leases, clock: Clock,
        wake: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._workspace, self._store, self._memberships = workspace, store, memberships
        self._leases, self._clock, self._wake = leases, clock, wake

    async def once(self) -> None:
        """One round over the services whose lease this copy holds."""
        for row in await self._store.some(self._workspace, []):
            fence = self._leases.token_for(row.name)
            found = due(row, self._clock.now())
            if fence is None or found is None:
                continue
            try:
                await self._act(row, found, fence)
            except Stale:
                continue  # somebody changed it at this moment: it is looked at again in the next round
            log.warning("unused service", service=row.name, done=found.kind, why=found.message)
            self._wake(row.name)

    async def _act(self, row: ServiceRow, found: Due, fence: int) -> None:
        cause = Cause(actor="control", reason=found.reason, message=found.message)
        if found.kind == "warn":
            after = replace(
                row, expiry_warned=found.days, row_version=row.row_version + 1, updated_at=self._clock.now()
            )  # fmt: skip
            async with self._store.database.transaction() as connection:
                await self._store.update(connection, after, fence)
                await self._store.tell(connection, after, "expiry_warned", cause)
            return
        change = deleted(row, self._clock.now(), found.message)
        assert change is not None
        async with self._store.database.transaction() as connection:
            await self._store.update(connection, change.row, fence)
            await self._store.tell(connection, change.row, change.verb, cause)
            who = Caller("control", "local", uuid7())
            await audit.record_service(connection, who, "Services.Delete", row, change.row)
            await self._memberships.follow(connection, who, "Services.Delete", row, change.row)
