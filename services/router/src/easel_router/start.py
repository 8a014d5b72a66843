"""A router that begins: what was served before is served again, before any Envoy may ask."""

from __future__ import annotations

import asyncio
import contextlib
import os

import grpc.aio

from easel_kit.run import Process
from easel_router.apply import Applier
from easel_router.apply_groups import GroupApplier
from easel_router.comparisons import Comparisons
from easel_router.decide.snapshot import TokenSet
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.settings import Settings
from easel_router.store import Store
from easel_router.tokens import Tokens
from easel_router.xds.server import XdsServer

_PRUNE_S = 3600.0


class Start:
    """Serves discovery once nothing is missing: last good plans first, tokens from control where there is none."""

    def __init__(
        self, process: Process[Settings], known: Known, applier: Applier, groups: GroupApplier, tokens: Tokens,
        last_good: LastGood, store: Store, comparisons: Comparisons, server: XdsServer,
    ) -> None:  # fmt: skip
        self._process, self._known, self._applier, self._tokens = process, known, applier, tokens
        self._last_good, self._store, self._comparisons, self._server = last_good, store, comparisons, server
        self._groups = groups
        self._listening: grpc.aio.Server | None = None

    async def run(self) -> None:
        """Preloads, then listens for ever."""
        for service, plan in self._last_good.plans.items():
            state = self._known.services.get(service)
            same = state is None or state.uid == plan.uid
            if same:
                self._known.tokens.setdefault(service, TokenSet(tokens=plan.tokens, version=plan.token_version))
            self._applier.preload(plan, routed=same and (state is None or state.wanted != "deleted"))
        for group, group_plan in self._last_good.groups.items():
            if (known := self._known.groups.get(group)) is not None and known.uid == group_plan.uid:
                found = TokenSet(tokens=group_plan.tokens, version=group_plan.token_version)
                self._known.group_tokens.setdefault(group, found)
                self._groups.preload(group_plan)
        await self._every_route_is_back()
        self._listening = await self._server.start(self._process.settings.router_xds_addr)
        if (address := self._process.settings.router_xds_addr).startswith("unix:"):
            os.chmod(address.removeprefix("unix:"), 0o600)
        self._server.loaded.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Ends the streams; Envoys keep what they have."""
        if self._listening:
            await self._listening.stop(0.2)

    async def prune(self) -> None:
        """Drops old rows, for ever."""
        while True:
            await self._process.clock.sleep(_PRUNE_S)
            await self._store.prune(list(self._server.streams), self._process.holder)
            await self._comparisons.prune()

    async def _every_route_is_back(self) -> None:
        """A route that was live must be in the catalog before an Envoy may ask; that can need control's tokens."""
        while True:
            routed = [s.state.service for s in await self._store.routes() if s.state.state != "removed"]
            missing = [
                name
                for name in routed
                if name not in self._known.tokens
                and name in self._known.services
                and self._known.services[name].wanted != "deleted"
            ]
            groups = [n for n in routed if n in self._known.groups and n not in self._known.group_tokens]
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._tokens.refresh(missing, groups)
            for name in missing:
                if plan := self._known.plan(name):
                    self._applier.preload(plan)
            for name in groups:
                if group_plan := self._known.group_plan(name):
                    self._groups.preload(group_plan)
            if all(name in self._known.tokens for name in missing) and all(
                name in self._known.group_tokens for name in groups
            ):
                return
            self._process.log.warning("waiting for control's tokens before Envoys may connect", names=missing + groups)
            await self._process.clock.sleep(0.5)
