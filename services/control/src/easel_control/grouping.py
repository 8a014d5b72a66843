"""Groups as they are asked for and changed: rows and projections to answers, mutations in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from easel_control.decide import groups
from easel_control.decide.groups import GroupChange, Standing
from easel_control.decide.mutation import refuse_deleting, refuse_locked, unknown_service
from easel_control.group_store import GroupStore
from easel_control.group_tokens import GroupTokens
from easel_control.memberships import record_group
from easel_control.model import GroupRow, ServiceRow
from easel_control.mutating import Call, Mutations
from easel_control.pages import plain
from easel_control.store import Store
from easel_control.views import group_view
from easel_control.worlds import Worlds
from easel_kit.clock import Clock
from easel_kit.db import Connection
from easel_proto.v1 import groups_pb2

Work = Callable[[Connection], Awaitable[groups_pb2.Group]]


class Grouping:
    """One workspace's groups."""

    def __init__(
        self, store: GroupStore, services: Store, tokens: GroupTokens, worlds: Worlds, mutations: Mutations,
        clock: Clock, data_url: str,
    ) -> None:  # fmt: skip
        self._store, self._services, self._tokens, self._worlds = store, services, tokens, worlds
        self._mutations, self._clock, self._data_url = mutations, clock, data_url

    async def existing(self, workspace: str, name: str) -> GroupRow:
        """The group; raises NotFound."""
        row = await self._store.get(workspace, plain(name))
        if row is None:
            raise groups.unknown(name)
        return row

    async def page(self, workspace: str, after: str, size: int) -> list[GroupRow]:
        """Groups by name, from the one after `after` on."""
        return await self._store.page(workspace, plain(after), size)

    async def standings(
        self, rows: Sequence[GroupRow], connection: Connection | None = None
    ) -> list[tuple[Standing, ...]]:
        """Each group's members as they are now."""
        names = [m.service for row in rows for m in row.members]
        if not names:
            return [() for _ in rows]
        workspace = rows[0].workspace
        services = {s.name: s for s in await self._services.some(workspace, names, connection)}
        routes = await self._worlds.routes.some(names, workspace, connection)
        in_traffic = {name: len(route.replicas) for name, route in routes.items() if route.state != "removed"}
        return [groups.standings(row, services, in_traffic) for row in rows]

    async def shown(self, rows: Sequence[GroupRow], connection: Connection | None = None) -> list[groups_pb2.Group]:
        """Groups as the API shows them."""
        found = zip(rows, await self.standings(rows, connection), strict=True)
        return [group_view(row, standings, self._tokens.of(row), self._data_url) for row, standings in found]

    async def update(self, call: Call, request: groups_pb2.UpdateGroupRequest) -> groups_pb2.Group:
        """Another traffic mode, other limits. Raises InvalidInput, NotFound, Conflict."""
        rate = request.rate_limit if request.HasField("rate_limit") else None
        at_a_time = request.concurrency_limit if request.HasField("concurrency_limit") else None

        async def work(connection: Connection) -> groups_pb2.Group:
            before = await self._store.get(call.workspace, plain(request.name), connection)
            if before is None:
                raise groups.unknown(request.name)
            change = groups.updated(before, plain(request.traffic_mode), rate, at_a_time, self._clock.now())
            return await self._written(connection, call, before, change)

        return await self._mutations.run(call, groups_pb2.Group, work)

    async def release(self, call: Call, request: groups_pb2.ReleaseRequest) -> groups_pb2.Group:
        """Has a service take part in its group's traffic, or no more. Raises InvalidInput, NotFound, Conflict."""
        weight = request.weight if request.HasField("weight") else None

        async def work(connection: Connection) -> groups_pb2.Group:
            service = await self._member(connection, call, request.service)
            before = await self._store.get(call.workspace, service.group, connection)
            assert before is not None, "a group is there as long as it has members"
            state = plain(request.traffic_state)
            change = groups.released(before, service.name, state, weight, self._clock.now())
            return await self._written(connection, call, before, change)

        return await self._mutations.run(call, groups_pb2.Group, work)

    async def _member(self, connection: Connection, call: Call, name: str) -> ServiceRow:
        """The service, locked; raises NotFound, and Conflict where it cannot be released."""
        row = await self._services.get(call.workspace, plain(name), connection)
        if row is None:
            raise unknown_service(name)
        refuse_locked(row, call.action)
        refuse_deleting(row)
        if not row.group:
            raise groups.no_group(name)
        return row

    async def _written(
        self, connection: Connection, call: Call, before: GroupRow, change: GroupChange | None
    ) -> groups_pb2.Group:
        if change is not None:
            await self._store.write(connection, change, call.caller.actor)
            await record_group(connection, call.caller, call.action, before, change)
        [answer] = await self.shown([before if change is None else change.row], connection)
        return answer
