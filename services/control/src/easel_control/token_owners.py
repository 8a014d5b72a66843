"""Whose tokens: what differs between a service and a group when their tokens change."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from msgspec.structs import replace

from easel_contracts.errors import NotFound
from easel_contracts.facts import Cause
from easel_control.admission import Admission
from easel_control.decide import groups
from easel_control.decide.groups import GroupChange
from easel_control.decide.mutation import raised, refuse_deleting, refuse_locked, unknown_service
from easel_control.decide.tokens import DEFAULT, Token
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.model import GroupRow, ServiceRow
from easel_control.pages import plain
from easel_control.store import Store
from easel_control.token_store import Kind
from easel_kit.clock import Clock
from easel_kit.db import Connection

R = TypeVar("R")


class TokenOwner(Protocol, Generic[R]):
    """Services, or groups. `R`: their row."""

    kind: Kind

    async def find(self, connection: Connection, workspace: str, name: str, *, lock: bool) -> R | None:
        """The row; with `lock`, nobody else changes it until the transaction ends."""

    def unknown(self, name: str) -> NotFound:
        """The error where there is none."""

    def refuse(self, row: R, action: str) -> None:
        """Raises Conflict where its tokens may not be changed now."""

    def default_of(self, row: R) -> Token:
        """The token in its row."""

    def version_of(self, row: R) -> int:
        """Its token_version."""

    async def write(self, connection: Connection, row: R, default: Token, cause: Cause, *, asked: bool) -> R:
        """Raises token_version and tells it; the value of `default` goes into the row. Raises Stale.

        `asked`: somebody changed it, so it is another generation; else time did.
        """


class Services:
    """Services as owners of tokens."""

    kind: Kind = "service"

    def __init__(self, store: Store, admission: Admission, clock: Clock) -> None:
        self._store, self._admission, self._clock = store, admission, clock

    async def find(self, connection: Connection, workspace: str, name: str, *, lock: bool) -> ServiceRow | None:
        """The service."""
        if lock:
            return await self._store.get(workspace, plain(name), connection)
        found = await self._store.some(workspace, [plain(name)], connection)
        return found[0] if found else None

    def unknown(self, name: str) -> NotFound:
        """As for every call that names a service."""
        return unknown_service(name)

    def refuse(self, row: ServiceRow, action: str) -> None:
        """Where it is locked, or being deleted."""
        refuse_locked(row, action)
        refuse_deleting(row)

    def default_of(self, row: ServiceRow) -> Token:
        """The token of the service.json, or the one that was made."""
        return Token(
            name=DEFAULT, value=self._admission.token_of(row), created_at=row.token_changed_at or row.created_at
        )

    def version_of(self, row: ServiceRow) -> int:
        """Rises with every change of a token."""
        return row.token_version

    async def write(
        self, connection: Connection, row: ServiceRow, default: Token, cause: Cause, *, asked: bool
    ) -> ServiceRow:
        """As `service.updated`."""
        now = self._clock.now()
        after = raised(row, now) if asked else replace(row, row_version=row.row_version + 1, updated_at=now)
        after = replace(after, token_version=row.token_version + 1)
        if default.value != self._admission.token_of(row):
            sealed = self._admission.seal_token(row.workspace, row.name, default.value)
            after = replace(after, token_sealed=sealed, token_changed_at=default.created_at)
        await self._store.update(connection, after)
        await self._store.tell(connection, after, "updated", cause)
        return after


class Groups:
    """Groups as owners of tokens."""

    kind: Kind = "group"

    def __init__(self, store: GroupStore, tokens: GroupTokens, clock: Clock) -> None:
        self._store, self._tokens, self._clock = store, tokens, clock

    async def find(self, connection: Connection, workspace: str, name: str, *, lock: bool) -> GroupRow | None:
        """The group."""
        if lock:
            return await self._store.get(workspace, plain(name), connection)
        found = await self._store.some(workspace, [plain(name)], connection)
        return found[0] if found else None

    def unknown(self, name: str) -> NotFound:
        """As for every call that names a group."""
        return groups.unknown(name)

    def refuse(self, row: GroupRow, action: str) -> None:
        """Never: groups have no locks."""

    def default_of(self, row: GroupRow) -> Token:
        """The token that was made with the group, or what it was rotated to."""
        return Token(name=DEFAULT, value=self._tokens.of(row), created_at=row.token_changed_at or row.created_at)

    def version_of(self, row: GroupRow) -> int:
        """Rises with every change of a token."""
        return row.token_version

    async def write(
        self, connection: Connection, row: GroupRow, default: Token, cause: Cause, *, asked: bool
    ) -> GroupRow:
        """As `group.updated`."""
        after = replace(
            row, row_version=row.row_version + 1, generation=row.generation + asked, updated_at=self._clock.now(),
            token_version=row.token_version + 1,
        )  # fmt: skip
        if default.value != self._tokens.of(row):
            sealed = self._tokens.sealed(row.workspace, row.name, default.value)
            after = replace(after, token_sealed=sealed, token_changed_at=default.created_at)
        change = GroupChange(row=after, verb="updated", reason=cause.reason, message=cause.message)
        await self._store.write(connection, change, cause.actor)
        return after
