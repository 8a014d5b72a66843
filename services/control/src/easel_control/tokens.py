"""Carries out decide/tokens.py: a change of an owner's tokens, its fact, audit record and answer in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from easel_contracts.facts import Cause
from easel_contracts.ids import uuid7
from easel_control.audit import record
from easel_control.decide.tokens import DEFAULT, Token, TokenChange, Tokens, expired, good
from easel_control.mutating import Call, Mutations
from easel_control.pages import plain
from easel_control.token_owners import TokenOwner
from easel_control.token_store import Kind, TokenStore
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_kit.grpc import Caller
from easel_kit.reconcile import Reconciler
from easel_kit.telemetry import get_logger
from easel_proto.v1 import tokens_pb2

RESYNC_S = 600.0
"""How often the database is asked for tokens that expire soon: those that another copy of control made."""

log = get_logger("tokens")


class TokenKeeper:
    """Tokens of a workspace's services and groups.

    Expired ones are removed by `sweeper`, which sleeps until the next expiry. Any copy of control may do it, without a
    lease: what has expired is the same for all, and the owner's row is locked meanwhile.
    """

    def __init__(
        self, workspace: str, store: TokenStore, owners: Mapping[Kind, TokenOwner[Any]], mutations: Mutations,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._workspace, self._store, self._owners = workspace, store, owners
        self._mutations, self._clock = mutations, clock
        self.sweeper = Reconciler("token_expiry", self._sweep, clock, self._expiring, resync_s=RESYNC_S)

    async def listed(self, workspace: str, kind: Kind, name: str) -> Tokens:
        """Those that are good now; raises NotFound."""
        owner = self._owners[kind]
        async with self._store.database.snapshot() as connection:
            row = await owner.find(connection, workspace, plain(name), lock=False)
            if row is None:
                raise owner.unknown(name)
            more = await self._store.of(connection, kind, workspace, name)
        return good((owner.default_of(row), *more), self._clock.now())

    async def change(
        self, call: Call, kind: Kind, name: str, decide: Callable[[Tokens], TokenChange]
    ) -> tokens_pb2.AccessToken:
        """Changes an owner's tokens as `decide` says; raises NotFound, Conflict, and what `decide` raises."""
        owner = self._owners[kind]

        async def work(connection: Connection) -> tokens_pb2.AccessToken:
            row = await owner.find(connection, call.workspace, plain(name), lock=True)
            if row is None:
                raise owner.unknown(name)
            owner.refuse(row, call.action)
            before = (owner.default_of(row), *await self._store.of(connection, kind, call.workspace, name))
            change = decide(before)
            await self._write(connection, call.caller, call.action, owner, row, before, change, asked=True)
            return token_view(change.token)

        answer = await self._mutations.run(call, tokens_pb2.AccessToken, work)
        self.sweeper.wake(f"{kind}/{name}")
        return answer

    async def _write(
        self, connection: Connection, who: Caller, action: str, owner: TokenOwner[Any], row: Any, before: Tokens,
        change: TokenChange, *, asked: bool,
    ) -> None:  # fmt: skip
        after = change.tokens
        await self._store.replace(connection, owner.kind, row.workspace, row.name, _named(before), _named(after))
        default = next(t for t in after if t.name == DEFAULT)
        cause = Cause(actor=who.actor, reason=change.reason, message=change.message)
        written = await owner.write(connection, row, default, cause, asked=asked)
        await record(
            connection, who, row.workspace, action, f"{owner.kind}/{row.name}",
            shown(owner.version_of(row), before), shown(owner.version_of(written), after),
        )  # fmt: skip

    async def _sweep(self, key: str) -> float | None:
        """Removes an owner's expired tokens; answers when the next one expires."""
        kind, _, name = key.partition("/")
        owner = self._owners["group" if kind == "group" else "service"]
        at = await self._store.next_expiry(owner.kind, self._workspace, name)
        if at is None:
            return None
        if (left := (at - self._clock.now()).total_seconds()) > 0:
            return left
        async with self._store.database.transaction() as connection:
            row = await owner.find(connection, self._workspace, name, lock=True)
            if row is None:
                return None
            before = (owner.default_of(row), *await self._store.of(connection, owner.kind, self._workspace, name))
            if (change := expired(before, self._clock.now())) is not None:
                who = Caller("control", "local", uuid7())
                await self._write(connection, who, "Tokens.Expire", owner, row, before, change, asked=False)
                log.info("tokens expired", owner=key, what=change.message)
        return 0.0

    async def _expiring(self) -> list[str]:
        """Owners whose next expiry may come before the next resync."""
        found = await self._store.expiring(self._workspace, self._clock.now() + timedelta(seconds=2 * RESYNC_S))
        return [f"{kind}/{owner}" for kind, owner in found]


def shown(version: int, tokens: Tokens) -> dict[str, Any]:
    """What the audit log keeps of an owner's tokens: no value."""
    return {
        "token_version": version,
        "tokens": [
            {"name": t.name, "expires_at": None if t.expires_at is None else t.expires_at.isoformat(),
             "rate_limit": t.rate_limit_qps, "rotated": t.rotated}
            for t in tokens
        ],
    }  # fmt: skip


def token_view(token: Token) -> tokens_pb2.AccessToken:
    """A token as the API shows it to holders of an access key."""
    view = tokens_pb2.AccessToken(
        name=token.name, value=token.value, rate_limit=token.rate_limit_qps, rotated=token.rotated
    )
    view.create_time.FromDatetime(token.created_at)
    if token.expires_at is not None:
        view.expire_time.FromDatetime(token.expires_at)
    return view


def _named(tokens: Tokens) -> Tokens:
    return tuple(t for t in tokens if t.name != DEFAULT)
