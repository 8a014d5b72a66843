"""Facts in: take over what is newer, wake the service. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from easel_contracts import facts, states
from easel_contracts.facts import Fact, GroupState, ReplicaState, ServiceState
from easel_kit.projection import Projection
from easel_router.model import Known


class World:
    """The projections and their copy in memory."""

    def __init__(
        self, known: Known, services: Projection[ServiceState], replicas: Projection[ReplicaState],
        groups: Projection[GroupState], workspace: str,
    ) -> None:  # fmt: skip
        self._known, self._services, self._replicas, self._workspace = known, services, replicas, workspace
        self._groups = groups
        self.wake: Callable[[str], None] = lambda service: None
        """Called with the service whose route may have changed."""
        self.wake_group: Callable[[str], None] = lambda group: None
        """Called with the group whose route may have changed."""
        self.ended: Callable[[str], None] = lambda replica: None
        """Called with a replica that is no more."""

    async def load(self, routed: Iterable[str]) -> None:
        """Everything that is known from before; `routed` services that were deleted meanwhile too."""
        for service in await self._services.all(self._workspace):
            self._known.take_service(service)
        for replica in await self._replicas.all(self._workspace):
            self._known.take_replica(replica)
        for group in await self._groups.all(self._workspace):
            self._known.take_group(group)
        for name in routed:
            if name not in self._known.services and (gone := await self._services.get(name, self._workspace)):
                self._known.take_service(ended(gone))

    async def on_service(self, fact: Fact) -> None:
        """A service's spec, wanted state or token changed."""
        if await self._services.apply(fact):
            state = facts.state_of(fact, ServiceState)
            for target in self._known.take_service(ended(state) if fact.verb == "deleted" else state):
                self.wake(target)
        self._wake_all(fact.key)

    async def on_replica(self, fact: Fact) -> None:
        """A replica came, went, drains or moved."""
        if await self._replicas.apply(fact):
            state = facts.state_of(fact, ReplicaState)
            self._known.take_replica(state)
            if states.is_final(states.REPLICA, state.state):
                self.ended(state.id)
        self._wake_all(fact.key)

    async def on_group(self, fact: Fact) -> None:
        """A group came, went, or shares its traffic in another way."""
        if await self._groups.apply(fact):
            if fact.verb == "deleted":
                self._known.forget_group(fact.key)
            else:
                self._known.take_group(facts.state_of(fact, GroupState))
        self.wake_group(fact.key)

    def _wake_all(self, service: str) -> None:
        """The service, and the groups that it is in."""
        self.wake(service)
        self.wake_groups(service)

    def wake_groups(self, service: str) -> None:
        """The groups that it is in."""
        for group in self._known.groups_of(service):
            self.wake_group(group)


def ended(state: ServiceState) -> ServiceState:
    """The state of a service that was deleted."""
    return msgspec.structs.replace(state, wanted="deleted")
