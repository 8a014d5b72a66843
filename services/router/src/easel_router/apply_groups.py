"""Brings a group's route to every Envoy: plan → scopes → acknowledged → probed → told, as `apply` does for a service.

A group has no clusters: its scopes lead to its members'. So a member that goes, or has no replica any more, must be out
of its groups' shares first: `aside` is called before its own route changes. Groups are told as routes under their own
names, which no service has; who knows no service of that name does nothing about it.
"""

from __future__ import annotations

import asyncio

from easel_contracts.facts import Cause, RouteState
from easel_kit.clock import Clock
from easel_kit.leases import Leases
from easel_kit.telemetry import get_logger
from easel_router.decide.groups import GroupPlan, problems
from easel_router.envoys import Envoys, NoEnvoy
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.store import Stored
from easel_router.tokens import Tokens
from easel_router.told import Told, is_told
from easel_router.xds.catalog import Catalog
from easel_router.xds.groups import render_group
from easel_router.xds.messages import ROUTE
from easel_router.xds.refusals import Refused
from easel_router.xds.scopes import Resources
from easel_router.xds.stream import Gone

_AGAIN_S = 1.0
_LEASE_AGAIN_S = 0.5

log = get_logger("groups")


class GroupApplier:
    """Applies groups' routes."""

    def __init__(
        self, *, known: Known, tokens: Tokens, catalog: Catalog, envoys: Envoys, told: Told, leases: Leases,
        last_good: LastGood, clock: Clock, probe_secret: str, timeout_s: float,
    ) -> None:  # fmt: skip
        self._known, self._tokens, self._catalog, self._envoys = known, tokens, catalog, envoys
        self._told, self._leases, self._last_good, self._clock = told, leases, last_good, clock
        self._secret, self._timeout_s = probe_secret, timeout_s
        self._settled: dict[str, GroupPlan] = {}
        """Plans that are live and told."""
        self._scopes: dict[str, tuple[str, ...]] = {}
        """Group → names of its scopes in the catalog."""
        self._locks: dict[str, asyncio.Lock] = {}
        """A group is looked at by its own loop, and for its members that go."""
        self.refused: dict[str, str] = {}
        """Group → reason, while its newest plan is refused."""

    async def reconcile(self, group: str) -> float | None:
        """Brings one group up to date; seconds until it wants to be looked at again, or None."""
        async with self._locks.setdefault(group, asyncio.Lock()):
            if group not in self._known.groups:
                again = await self._remove(group)
                if again is None:
                    self._locks.pop(group, None)
                return again
            tokens_are_new = await self._tokens.ensure_group(group)
            plan = self._known.group_plan(group)
            if plan is None:
                return _AGAIN_S
            if self._settled.get(group) == plan:
                return None if tokens_are_new else _AGAIN_S
            again = await self._apply(plan)
            return again if tokens_are_new else _AGAIN_S

    async def aside(self, service: str) -> None:
        """Has the groups of a service that can answer no more send its requests to others, before its route changes."""
        for group in self._known.groups_of(service):
            await self.reconcile(group)

    def holds(self, name: str) -> bool:
        """Whether the scope of this name is a group's."""
        return name in self._scopes

    def preload(self, plan: GroupPlan) -> None:
        """Puts a plan into the catalog without waiting: the last good one, at start."""
        self._put(plan, render_group(plan, self._secret))

    async def _apply(self, plan: GroupPlan) -> float | None:
        started = self._clock.monotonic()
        before = await self._told.of(plan.group)
        resources = render_group(plan, self._secret)
        if wrong := (*problems(plan), *self._taken(plan.group)):
            return await self._refuse(plan, resources.hash, before, "; ".join(wrong))
        if before is not None and is_told(before, plan.generation, resources.hash):
            if before.state.state == "probed":
                self._put(plan, resources)
                self._is_live(plan)
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                streams = await self._envoys.everywhere({ROUTE: self._put(plan, resources)})
                await self._envoys.probed(streams, plan.group, resources.route_hash)
        except NoEnvoy:
            return _AGAIN_S
        except Gone:
            return 0.0
        except Refused as refused:
            return await self._refuse(plan, resources.hash, before, str(refused))
        took_ms = (self._clock.monotonic() - started) * 1000
        return await self._live(plan, resources.hash, before, envoys=len(streams), took_ms=took_ms)

    async def _live(
        self, plan: GroupPlan, version: str, before: Stored | None, *, envoys: int, took_ms: float
    ) -> float | None:
        self.refused.pop(plan.group, None)
        lease = self._leases.token_for(plan.group)
        if lease is None:
            self._last_good.put_group(plan)
            return _LEASE_AGAIN_S
        state = RouteState(
            service=plan.group, generation=plan.generation, state="probed", version=version, replicas=(),
            token_version=plan.token_version, envoys=envoys, apply_ms=round(took_ms, 2),
            split_permille=plan.split.permille if plan.split else None,
        )  # fmt: skip
        message = f"{len(plan.shares)} of {len(plan.members)} members get requests on {envoys} Envoys"
        await self._told.tell(state, before, lease, Cause(actor="router", reason="SnapshotProbed", message=message))
        self._is_live(plan)
        return None

    def _is_live(self, plan: GroupPlan) -> None:
        self._settled[plan.group] = plan
        self._last_good.put_group(plan)

    def _put(self, plan: GroupPlan, resources: Resources) -> dict[str, str | None]:
        wanted = resources.by_type[ROUTE]
        gone = (name for name in self._scopes.get(plan.group, ()) if name not in wanted)
        self._scopes[plan.group] = plan.scopes
        return {name: self._catalog.put(ROUTE, name, wanted.get(name)) for name in (*wanted, *gone)}

    def _withdraw(self, group: str) -> dict[str, str | None]:
        """What is a service's by now stays."""
        names = [name for name in self._scopes.pop(group, (group,)) if name not in self._known.services]
        return {name: self._catalog.put(ROUTE, name, None) for name in names}

    def _taken(self, group: str) -> list[str]:
        service = self._known.services.get(group)
        return [f"{group}: a service has this name"] if service is not None and service.wanted != "deleted" else []

    async def _refuse(self, plan: GroupPlan, version: str, before: Stored | None, reason: str) -> float | None:
        """Back to the last good scopes; told once per content."""
        log.error("group refused", group=plan.group, reason=reason)
        self.refused[plan.group] = reason
        good = self._last_good.groups.get(plan.group)
        if good is not None and good.uid == plan.uid and not self._taken(plan.group):
            self.preload(good)
        else:
            self._withdraw(plan.group)
        if is_told(before, plan.generation, version):
            return None
        lease = self._leases.token_for(plan.group)
        if lease is None:
            return _LEASE_AGAIN_S
        state = RouteState(
            service=plan.group, generation=plan.generation, state="refused", version=version, replicas=(),
            token_version=plan.token_version, refused_reason=reason,
        )  # fmt: skip
        await self._told.tell(state, before, lease, Cause(actor="router", reason="SnapshotRefused", message=reason))
        return None

    async def _remove(self, group: str) -> float | None:
        """The last member has left, or never was one."""
        self._settled.pop(group, None)
        gone = self._withdraw(group)
        before = await self._told.of(group)
        if before is not None and before.state.state != "removed" and group not in self._known.services:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._envoys.probed(await self._envoys.everywhere({ROUTE: gone}), group, "")
            except NoEnvoy:
                return _AGAIN_S
            except Gone:
                return 0.0
            lease = self._leases.token_for(group)
            if lease is None:
                return _LEASE_AGAIN_S
            state = RouteState(
                service=group, generation=before.state.generation, state="removed", version="", replicas=()
            )
            cause = Cause(actor="router", reason="GroupDeleted", message=f"group {group} has no member any more")
            await self._told.tell(state, before, lease, cause)
        self._last_good.remove_group(group)
        self._told.forget(group)
        self.refused.pop(group, None)
        return None
